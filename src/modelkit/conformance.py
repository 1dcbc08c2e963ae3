"""Which checks an artifact has to pass, and what they say of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from modelkit import (
    byte_level,
    check_modules,
    corpora,
    distances,
    feeds,
    generation,
    graphs,
    images,
    json_objects,
    kinds,
    lock,
    model,
    pipeline,
    runtime,
    searching,
    texts,
    tokenizer,
    tracing,
)
from modelkit import limits as judgement
from modelkit.check_modules import PROFILES
from modelkit.digests import key_of
from modelkit.errors import CheckError, ManifestError, ModelkitError
from modelkit.pipeline import Build
from modelkit.stages.convert import NAME as CONVERTED
from modelkit.stages.download import NAME as DOWNLOADED
from modelkit.stages.job import code, tool
from modelkit.stages.quantize import NAME as QUANTIZED
from modelkit.vocabulary import Artifact, Manifest, Stage, Subject, Variant, Verdict

TOOLS = ("onnx", "onnxruntime", "numpy", "tokenizers", "pillow", "hypothesis", "jinja2")
"""What a verdict's figures may depend on, beside the artifact."""
SHARED = (judgement, searching, corpora, distances, texts, feeds, tracing, graphs, byte_level)
"""What checks share: an edit of it may change a verdict."""
PROOF = "prove"
"""The verdict on the checks themselves, which stands beside theirs (`modelkit.proving`)."""


def plan(manifest: Manifest, profile: str = PROFILES[0]) -> tuple[str, ...]:
    """The checks every variant of `manifest` has to pass in `profile`: those on the shelf, and the project's own.

    A check names in `NEEDS` what a task must give (its module's `GIVES`) to be looked at so, and in `PROFILE` the first
    profile that runs it.
    """
    project, gives = kinds.project_of(manifest.path), given(manifest)
    there = {kind: check_modules.load(kind, project) for kind in kinds.names("checks", project)}
    if PROOF in there:
        raise ManifestError(f"no check may be called {PROOF}", hint="so is called the proof that the checks bite")
    profiles = {kind: check_modules.profiles(one) for kind, one in there.items() if gives >= check_modules.needs(one)}
    _insist_on_use(manifest, profiles, profile)
    return tuple(kind for kind, those in profiles.items() if profile in those)


def _insist_on_use(manifest: Manifest, profiles: Mapping[str, Sequence[str]], profile: str) -> None:
    """Nothing may be said of a check that never looks at this model, and no excuse may outlive its day unseen."""
    limits = {(f"variants.{one.name}.limits.{kind}", kind) for one in manifest.variants.values() for kind in one.limits}
    known = {(f"known_failures.{index}", one.check) for index, one in enumerate(manifest.known_failures)}
    for key, kind in sorted(limits | known):
        if kind not in profiles:
            message = f"{kind} never looks at a model for {manifest.task.kind}"
            raise ManifestError(message, where=manifest.place(key), hint="take this out")
    for one in manifest.known_failures:
        if one.until < _today() and profile not in profiles[one.check]:
            message = f"the excuse ended on {one.until}"
            hint = f"look with the profile {profiles[one.check][0]}, then take it out or give a later day"
            raise ManifestError(message, where=one.place, hint=hint)


def given(manifest: Manifest) -> set[str]:
    """What the task of `manifest` gives. Raises `ManifestError` for a task that does not say."""
    kind = manifest.task.kind
    gives = getattr(kinds.load("tasks", kind), "GIVES", ())
    if not gives:
        # Without it no check would compare what the model gives, and nobody would notice.
        raise ManifestError(f"the task {kind} does not say what it gives", hint="add GIVES to its module")
    return {*gives}


@dataclass
class Examination:
    """One artifact under its checks. Loads nothing until a check that is not on record asks for it."""

    build: Build
    artifact: Artifact
    profile: str = PROFILES[0]
    examples: int | None = None
    """How many examples a check that searches tries; None: what it takes for the profile."""
    _loaded: dict[tuple[str, int | None], Any] = field(default_factory=dict)
    _outputs: dict[str, Any] = field(default_factory=dict)

    def run(self, check: str) -> Verdict:
        """The verdict of `check`: the recorded one for exactly these bytes, limits, tools and processor, or a new one.

        Only passes are recorded. Raises `CheckError` when the check could not run.
        """
        manifest, variant = self.build.job.manifest, self.build.job.variant
        return _excused(manifest, variant, self.recorded(self.key(check), lambda: self._found(check)))

    def recorded(self, key: str, find: Callable[[], Verdict]) -> Verdict:
        """The verdict on record under `key`, or else what `find` gives, which is recorded if it is a pass."""
        if record := self.build.store.get_record(key):
            return replace(_verdict(record), reused=True)
        verdict = find()
        if verdict.outcome == "passed":
            self.build.store.put_record(key, _fields(verdict))
        return verdict

    def _found(self, check: str) -> Verdict:
        return check_modules.verdict(check, self._module(check), self._subject(check), self._limits(check))

    def key(self, check: str) -> str:
        """Of everything that a verdict of `check` depends on: two verdicts with one key are one verdict."""
        module, job = self._module(check), self.build.job
        # A check that reads a file of its own says what it found there.
        reads = {"reads": module.reads(job.manifest)} if hasattr(module, "reads") else {}
        tries = {"examples": examples} if (examples := self._examples(check)) else {}
        others = {"siblings": self._siblings()} if _compares(module) else {}
        return key_of(
            {
                **reads,
                **tries,
                **others,
                "check": check,
                "version": module.VERSION,
                "code": [code(module), code(*SHARED)],
                "limits": json.loads(json.dumps(asdict(self._limits(check)))),
                # A check sees the whole manifest; these are the parts that no artifact digest covers.
                "license": job.manifest.license,
                "channel": job.variant.channel,
                "budget": job.variant.budget,
                "signatures": lock.signatures(job.manifest),
                "scheme": lock.options(job.variant.scheme),
                "outputs": self._outputs_of(self.artifact),
                "reference": self.build.stage(CONVERTED).key,
            }
        )

    def keys(self) -> dict[str, str]:
        """The key of every planned check."""
        return {check: self.key(check) for check in plan(self.build.job.manifest, self.profile)}

    def standing(self) -> dict[str, list[str]]:
        """The keys of each check in every profile that runs it, lightest first: verdicts under these still stand."""
        standing: dict[str, list[str]] = {}
        for one in (*(replace(self, profile=profile) for profile in PROFILES), self):
            for check, key in one.keys().items():
                standing.setdefault(check, []).append(key)
        return standing

    def _module(self, check: str) -> Any:
        return check_modules.load(check, kinds.project_of(self.build.job.manifest.path))

    def _limits(self, check: str) -> Any:
        return self.build.job.variant.limits.get(check) or self._module(check).Options()

    def _examples(self, check: str) -> int:
        """How many examples `check` tries: 0 for one that does not search."""
        standard = check_modules.examples(self._module(check), self.profile)
        return (self.examples or standard) if standard else 0

    def _subject(self, check: str) -> Subject:
        job = self.build.job
        return Subject(
            manifest=job.manifest,
            variant=job.variant,
            artifact=self.artifact,
            reference=self.build.artifact(CONVERTED),
            source=self.build.artifact(DOWNLOADED),
            corpus=corpora.rows(job.manifest)[0],
            open=self._open,
            outputs=self._of_corpus,
            again=lambda: pipeline.again(self.build),
            siblings=lambda: self._other_artifacts(check),
            examples=self._examples(check),
        )

    def _other_artifacts(self, check: str) -> dict[str, Artifact]:
        if not _compares(self._module(check)):
            # A pass would be on record for other siblings than those of the next run.
            raise CheckError(f"{check} looks at the other variants and does not say so", hint="give it SIBLINGS = True")
        return {name: pipeline.build(one) for name, one in pipeline.siblings(self.build).items()}

    def _siblings(self) -> dict[str, str]:
        """What decides the models of the other variants, without building them: warm runs ask for this, too."""
        return {name: one.stage(QUANTIZED).key for name, one in pipeline.siblings(self.build).items()}

    def _open(self, artifact: Artifact, threads: int | None = None) -> Any:
        key = (artifact.digest, threads)
        if key not in self._loaded:
            self._loaded[key] = model.load(artifact.folder, threads)
        return self._loaded[key]

    def _of_corpus(self, artifact: Artifact) -> Any:
        if artifact.digest not in self._outputs:
            self._outputs[artifact.digest] = self._embedded(artifact)
        return self._outputs[artifact.digest]

    def _outputs_of(self, artifact: Artifact) -> dict[str, Any]:
        """Everything that the vectors of the corpus depend on."""
        manifest = self.build.job.manifest
        return {
            "stage": "corpus outputs",
            "artifact": artifact.digest,
            "corpus": corpora.rows(manifest)[1],
            "code": code(
                *(kinds.load("tasks", manifest.task.kind), model, runtime, generation),
                *(images, tokenizer, json_objects),
            ),
            "tools": {name: tool(name) for name in TOOLS},
            "processor": json.loads(json.dumps(runtime.cpu())),
        }

    def _embedded(self, artifact: Artifact) -> Any:
        """Kept in the store: the variants of a model, and two workers, share one run of their reference."""
        import numpy as np  # noqa: PLC0415

        def write(into: Path) -> None:
            texts = [row["text"] for row in corpora.rows(self.build.job.manifest)[0]]
            np.save(into / "outputs.npy", self._open(artifact).outputs(texts), allow_pickle=False)

        material = self._outputs_of(artifact)
        kept = self.build.store.make(Stage("corpus outputs", key_of(material), material), write)
        return np.load(kept.folder / "outputs.npy", allow_pickle=False)


def _compares(module: Any) -> bool:
    return bool(getattr(module, "SIBLINGS", False))


def _fields(verdict: Verdict) -> dict[str, Any]:
    fields = asdict(verdict)
    del fields["reused"]
    return {**fields, "worst": list(fields["worst"])}


def _verdict(fields: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**fields, "worst": tuple(fields["worst"])})


def _excused(manifest: Manifest, variant: Variant, verdict: Verdict) -> Verdict:
    """Apply the manifest's known failures, strictly: an excuse that is not needed, or is over, fails."""
    for known in manifest.known_failures:
        if (known.variant, known.check) != (variant.name, verdict.check):
            continue
        if known.until < _today():
            return replace(verdict, outcome="failed", sentence=f"{known.place}: the excuse ended on {known.until}; "
                                                               f"{verdict.sentence}")  # fmt: skip
        if verdict.outcome == "passed":
            return replace(verdict, outcome="failed", sentence=f"{known.place}: this known failure passes now; "
                                                               "remove it from known_failures")  # fmt: skip
        if verdict.outcome == "failed":
            return replace(verdict, outcome="excused", sentence=f"known failure until {known.until}, {known.because}: "
                                                                f"{verdict.sentence}")  # fmt: skip
    return verdict


def _today() -> date:
    return datetime.now(UTC).date()


def examine(examination: Examination) -> list[Verdict]:
    """Every planned check, in order. A check that cannot run is an `errored` verdict with the reason."""
    verdicts = []
    for check in plan(examination.build.job.manifest, examination.profile):
        try:
            verdict = examination.run(check)
        except ModelkitError as error:
            verdict = Verdict(check, "errored", str(error))
        verdicts.append(verdict)
    return verdicts
