"""Which checks an artifact has to pass, and what they say of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from traceback import extract_tb
from typing import Any

from modelkit import (
    byte_level,
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
from modelkit.digests import key_of
from modelkit.errors import CheckError, InputError, ManifestError, ModelkitError
from modelkit.pipeline import Build
from modelkit.stages.convert import NAME as CONVERTED
from modelkit.stages.download import NAME as DOWNLOADED
from modelkit.stages.job import code, tool
from modelkit.vocabulary import Artifact, Manifest, Place, Stage, Subject, Variant, Verdict

TOOLS = ("onnx", "onnxruntime", "numpy", "tokenizers", "pillow", "hypothesis", "jinja2")
"""What a verdict's figures may depend on, beside the artifact."""
SHARED = (judgement, searching, corpora, distances, texts, feeds, tracing, graphs, byte_level)
"""What checks share: an edit of it may change a verdict."""
PROFILES = ("quick", "full", "release")
"""How much is looked at: each profile runs the checks of those before it, too, and tries more examples."""
GIVEN = ("passed", "failed", "skipped")
"""What a check may find. The other outcomes are not its to give: any other text would pass for a pass."""
PROOF = "prove"
"""The verdict on the checks themselves, which stands beside theirs (`modelkit.proving`)."""


def plan(manifest: Manifest, profile: str = PROFILES[0]) -> tuple[str, ...]:
    """The checks every variant of `manifest` has to pass in `profile`: those on the shelf, and the project's own.

    A check names in `NEEDS` what a task must give (its module's `GIVES`) to be looked at so, and in `PROFILE` the first
    profile that runs it.
    """
    project, gives = kinds.project_of(manifest.path), given(manifest)
    there = {kind: kinds.load("checks", kind, project) for kind in kinds.names("checks", project)}
    if PROOF in there:
        raise ManifestError(f"no check may be called {PROOF}", hint="so is called the proof that the checks bite")
    wanted = PROFILES[: PROFILES.index(profile) + 1]
    return tuple(
        kind
        for kind, check in there.items()
        if gives >= {*getattr(check, "NEEDS", ())} and getattr(check, "PROFILE", PROFILES[0]) in wanted
    )


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
        try:
            found = self._module(check).check(self._subject(check), self._limits(check))
        # A text of the corpus that the model cannot answer is the corpus's fault, and no caller's.
        except (CheckError, InputError) as error:
            message = f"{self.build.job.name}: {check} could not run: {error.message}"
            raise CheckError(message, where=error.where, hint=error.hint) from error
        except Exception as error:
            # What a project wrote is a project's to correct; a mistake of modelkit's own is shown in full.
            if (place := _place_in(self._module(check), error)) is None:
                raise
            message = f"{self.build.job.name}: {check} broke off: {type(error).__name__}: {error}"
            raise CheckError(message, where=place, hint="correct the check") from error
        if found.outcome not in GIVEN:
            raise CheckError(
                f"{self.build.job.name}: {check} gave the outcome {found.outcome!r}",
                hint=f"a check gives {', '.join(GIVEN)}, and raises CheckError when it cannot run",
            )
        # A project's check may not pass its verdict off as another's.
        verdict: Verdict = replace(found, check=check)
        return verdict

    def key(self, check: str) -> str:
        """Of everything that a verdict of `check` depends on: two verdicts with one key are one verdict."""
        module, job = self._module(check), self.build.job
        # A check that reads a file of its own says what it found there.
        reads = {"reads": module.reads(job.manifest)} if hasattr(module, "reads") else {}
        tries = {"examples": examples} if (examples := self._examples(check)) else {}
        return key_of(
            {
                **reads,
                **tries,
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
        return kinds.load("checks", check, kinds.project_of(self.build.job.manifest.path))

    def _limits(self, check: str) -> Any:
        return self.build.job.variant.limits.get(check) or self._module(check).Options()

    def _examples(self, check: str) -> int:
        """How many examples `check` tries: 0 for one that does not search."""
        of_profiles: dict[str, int] = getattr(self._module(check), "EXAMPLES", {})
        return self.examples or of_profiles[self.profile] if of_profiles else 0

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
            examples=self._examples(check),
        )

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


def _fields(verdict: Verdict) -> dict[str, Any]:
    fields = asdict(verdict)
    del fields["reused"]
    return {**fields, "worst": list(fields["worst"])}


def _verdict(fields: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**fields, "worst": tuple(fields["worst"])})


def _place_in(module: Any, error: Exception) -> Place | None:
    """The last line of a check that stood in the way of `error`; None in one of modelkit's own."""
    if module.__name__.startswith("modelkit.checks."):
        return None
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == module.__file__]
    return Place(Path(module.__file__), lines[-1] or 1) if lines else None


def _excused(manifest: Manifest, variant: Variant, verdict: Verdict) -> Verdict:
    """Apply the manifest's known failures, strictly: an excuse that is not needed, or is over, fails."""
    for known in manifest.known_failures:
        if (known.variant, known.check) != (variant.name, verdict.check):
            continue
        if known.until < datetime.now(UTC).date():
            return replace(verdict, outcome="failed", sentence=f"{known.place}: the excuse ended on {known.until}; "
                                                               f"{verdict.sentence}")  # fmt: skip
        if verdict.outcome == "passed":
            return replace(verdict, outcome="failed", sentence=f"{known.place}: this known failure passes now; "
                                                               "remove it from known_failures")  # fmt: skip
        if verdict.outcome == "failed":
            return replace(verdict, outcome="excused", sentence=f"known failure until {known.until}, {known.because}: "
                                                                f"{verdict.sentence}")  # fmt: skip
    return verdict


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
