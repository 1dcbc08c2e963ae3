"""Which checks an artifact has to pass, and what they say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from modelkit import generation, images, json_objects, kinds, lock, model, runtime, tokenizer
from modelkit import limits as judgement
from modelkit.digests import key_of
from modelkit.errors import CheckError, InputError, ModelkitError
from modelkit.pipeline import Build
from modelkit.stages.convert import NAME as CONVERTED
from modelkit.stages.job import code, tool
from modelkit.vocabulary import Artifact, Manifest, Place, Stage, Subject, Variant, Verdict

TOOLS = ("onnx", "onnxruntime", "numpy", "tokenizers", "pillow")
"""What a verdict's figures may depend on, beside the artifact."""

FEWEST = 20
"""Texts in a corpus: with fewer, ten neighbours are most of the others and their overlap says nothing."""


def plan(manifest: Manifest) -> tuple[str, ...]:
    """The checks every variant of `manifest` has to pass: those on the shelf, and the project's own, for its task."""
    project = kinds.project_of(manifest.path)
    there = {kind: kinds.load("checks", kind, project) for kind in kinds.names("checks", project)}
    # A check without `TASKS` is for every task.
    task = manifest.task.kind
    return tuple(kind for kind, check in there.items() if task in getattr(check, "TASKS", (task,)))


@dataclass
class Examination:
    """One artifact under its checks. Loads nothing until a check that is not on record asks for it."""

    build: Build
    artifact: Artifact
    _loaded: dict[tuple[str, int | None], Any] = field(default_factory=dict)
    _outputs: dict[str, Any] = field(default_factory=dict)

    def run(self, check: str) -> Verdict:
        """The verdict of `check`: the recorded one for exactly these bytes, limits, tools and processor, or a new one.

        Only passes are recorded. Raises `CheckError` when the check could not run.
        """
        manifest, variant = self.build.job.manifest, self.build.job.variant
        key = self.key(check)
        if record := self.build.store.get_record(key):
            return _excused(manifest, variant, replace(_verdict(record), reused=True))
        try:
            found = self._module(check).check(self._subject(), self._limits(check))
        # A text of the corpus that the model cannot answer is the corpus's fault, and no caller's.
        except (CheckError, InputError) as error:
            message = f"{self.build.job.name}: {check} could not run: {error.message}"
            raise CheckError(message, where=error.where, hint=error.hint) from error
        # A project's check may not pass its verdict off as another's.
        verdict: Verdict = replace(found, check=check)
        if verdict.outcome == "passed":
            self.build.store.put_record(key, _fields(verdict))
        return _excused(manifest, variant, verdict)

    def key(self, check: str) -> str:
        """Of everything that a verdict of `check` depends on: two verdicts with one key are one verdict."""
        module, job = self._module(check), self.build.job
        # A check that reads a file of its own says what it found there.
        reads = {"reads": module.reads(job.manifest)} if hasattr(module, "reads") else {}
        return key_of(
            {
                **reads,
                "check": check,
                "version": module.VERSION,
                "code": [code(module), code(judgement)],
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
        return {check: self.key(check) for check in plan(self.build.job.manifest)}

    def _module(self, check: str) -> Any:
        return kinds.load("checks", check, kinds.project_of(self.build.job.manifest.path))

    def _limits(self, check: str) -> Any:
        return self.build.job.variant.limits.get(check) or self._module(check).Options()

    def _subject(self) -> Subject:
        job, reference = self.build.job, self.build.artifact(CONVERTED)
        rows = corpus(job.manifest)[0]
        return Subject(job.manifest, job.variant, self.artifact, reference, rows, self._open, self._of_corpus)

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
            "corpus": corpus(manifest)[1],
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
            texts = [row["text"] for row in corpus(self.build.job.manifest)[0]]
            np.save(into / "outputs.npy", self._open(artifact).outputs(texts), allow_pickle=False)

        material = self._outputs_of(artifact)
        kept = self.build.store.make(Stage("corpus outputs", key_of(material), material), write)
        return np.load(kept.folder / "outputs.npy", allow_pickle=False)


def corpus_path(manifest: Manifest) -> Path:
    """The inputs of the manifest's task: the project's own corpus if it has one, else the one modelkit ships."""
    name = Path("corpora") / f"{manifest.task.kind}.jsonl"
    package = Path(__file__).parent
    project = kinds.project_of(manifest.path)
    # The second is where a wheel carries it, the third where a checkout has it.
    places = [package / name, package.parents[1] / "conformance" / name]
    for path in ([project / "conformance" / name] if project else []) + places:
        if path.is_file():
            return path
    raise CheckError(f"no corpus for the task {manifest.task.kind}", hint=f"write one at conformance/{name}")


def corpus(manifest: Manifest) -> tuple[tuple[dict[str, str], ...], str]:
    """The rows of the task's corpus and the sha256 of their file, read once for a whole run.

    Raises `CheckError` naming the line that is no row, or when there are too few.
    """
    return _corpus(corpus_path(manifest))


@cache
def _corpus(path: Path) -> tuple[tuple[dict[str, str], ...], str]:
    content = path.read_bytes()
    rows = tuple(_row(line, Place(path, number)) for number, line in enumerate(content.split(b"\n"), 1) if line)
    if len(rows) < FEWEST:
        raise CheckError(f"has {len(rows)} texts", where=path, hint=f"write at least {FEWEST}")
    return rows, sha256(content).hexdigest()


def _row(line: bytes, place: Place) -> dict[str, str]:
    try:
        row = json.loads(line)
        return {key: str(row[key]) for key in ("id", "text", "group")}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckError(
            f"is no row of a corpus ({type(error).__name__}: {error})",
            where=place,
            hint='write {"id": ..., "text": ..., "group": ...}',
        ) from error


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
    for check in plan(examination.build.job.manifest):
        try:
            verdict = examination.run(check)
        except ModelkitError as error:
            verdict = Verdict(check, "errored", str(error))
        verdicts.append(verdict)
    return verdicts
