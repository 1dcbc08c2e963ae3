"""The float32 model gives what the original implementation gave: the graph is the model, and not merely like itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from modelkit import kinds
from modelkit.limits import at_least, at_most, judge
from modelkit.vocabulary import Manifest, Subject, Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]

VERSION = 2
PROMISE = "the float32 model gives, on recorded inputs, what the original implementation gave"
WORST = 5


@dataclass(frozen=True)
class Options:
    """Least cosine of a row to the recorded one, and the largest difference of a single number."""

    cosine_min: float = at_least(0.999999)
    max_abs: float = at_most(5e-5)


class Pair(NamedTuple):
    """A row as a model gives it and as it was recorded, at the recorded places."""

    ours: Numbers
    theirs: Numbers
    rests: tuple[float, ...] | None
    """What all other logits weigh together, for both; empty when the row is whole, None when nobody wrote it down."""


def reads(manifest: Manifest) -> dict[str, Any]:
    """What a verdict depends on beside the artifact: the recording, and the code that reads it."""
    from modelkit.digests import digest_file  # noqa: PLC0415
    from modelkit.reference import recorded  # noqa: PLC0415

    path = recorded.path_of(manifest)
    golden = digest_file(path).sha256 if path.is_file() else None
    return {"golden": golden, "recorded": digest_file(_file(recorded)).sha256}


def check(subject: Subject, limits: Options) -> Verdict:
    """Compare the float32 reference with the recording; how far the artifact is from it is told beside.

    Skipped when there is no recording, or one of other weights or options. Raises `CheckError` for a damaged one.
    """
    from modelkit.reference import recorded  # noqa: PLC0415

    golden = recorded.read(subject.manifest)
    if golden is None:
        hint = "record one with `modelkit golden`"
        return Verdict("golden", "skipped", f"there is no {recorded.path_of(subject.manifest).name}; {hint}")
    if reason := _stranger(golden, subject):
        return Verdict("golden", "skipped", f"{reason}; record it again with `modelkit golden`")
    reference, artifact = (_pairs(subject, one, golden["rows"]) for one in (subject.reference, subject.artifact))
    if isinstance(reference, str):
        return Verdict("golden", "failed", reference)
    cosine, differences = _compared(reference)
    measured = {"cosine_min": float(cosine.min()), "max_abs": float(differences.max()), "rows": len(cosine)}
    if not isinstance(artifact, str):
        measured["artifact_cosine_min"] = float(_compared(artifact)[0].min())
    if "logits" in kinds.load("tasks", golden["task"]).GIVES:
        measured |= _divergence("kl_at_least", reference)
        measured |= {} if isinstance(artifact, str) else _divergence("artifact_kl_at_least", artifact)
    rows = sorted(zip(golden["rows"], cosine, differences, strict=True), key=lambda one: (-one[2], one[0]["id"]))
    worst = tuple({"id": row["id"], "max_abs": float(largest), "one_minus_cosine": float(1 - near)}
                  for row, near, largest in rows[:WORST])  # fmt: skip
    return judge("golden", measured, limits, worst)


def _stranger(golden: Mapping[str, Any], subject: Subject) -> str | None:
    """Why the recording says nothing about this model, if it does not."""
    from modelkit.reference import recorded  # noqa: PLC0415

    manifest = subject.manifest
    digests = {name: entry[0] for stage in subject.reference.chain
               for name, entry in stage.material.get("files", {}).items()}  # fmt: skip
    if changed := [name for name, digest in golden["source"].items() if digests.get(name) != digest]:
        return f"recorded from other weights ({changed[0]} differs)"
    if golden["task"] != manifest.task.kind:
        return f"recorded for the task {golden['task']}"
    if recorded.options(golden) != manifest.task.options:
        return f"recorded with other options of {manifest.task.kind}"
    return None


def _pairs(subject: Subject, artifact: Any, rows: list[Mapping[str, Any]]) -> list[Pair] | str:
    """For each row what the model gives at the recorded places, and what was recorded; or why they do not compare."""
    import numpy as np  # noqa: PLC0415

    # One by one, as they were recorded: what a batch changes is the invariance check's matter.
    outputs = np.asarray(subject.open(artifact).outputs([row["text"] for row in rows], batch_size=1), np.float64)
    if wrong := [row["id"] for row in rows if row["width"] != outputs.shape[1]]:
        return f"row {wrong[0]} was recorded with another width than {outputs.shape[1]}"
    pairs = [_pair(output, row) for output, row in zip(outputs, rows, strict=True)]
    if broken := [row["id"] for row, pair in zip(rows, pairs, strict=True)
                  if not np.isfinite([*pair.ours, *(pair.rests or ())]).all()]:  # fmt: skip
        return f"row {broken[0]} is not finite ({len(broken)} such rows)"
    return pairs


def _pair(output: Any, row: Mapping[str, Any]) -> Pair:
    import numpy as np  # noqa: PLC0415

    from modelkit.reference import recorded  # noqa: PLC0415

    places = row["places"]
    rests: tuple[float, ...] | None = () if len(places) == len(output) else None
    if row["rest"] is not None:
        rests = (recorded.without(output, places), row["rest"])
    return Pair(output[places], row["values"].astype(np.float64), rests)


def _divergence(name: str, pairs: Sequence[Pair]) -> dict[str, float]:
    """Nothing for an older recording, which does not say what the logits that it leaves out weigh."""
    return {} if any(pair.rests is None for pair in pairs) else {name: kl_at_least(pairs)}


def kl_at_least(pairs: Sequence[Pair]) -> float:
    """Mean KL divergence in nats per row, P the recorded distribution, all tokens that were not recorded being one.

    A lower bound: over all tokens the divergence is this or more, for what is told apart less is never farther apart
    (the data processing inequality; Kullback and Leibler 1951, section 4, doi:10.1214/aoms/1177729694).
    """
    import numpy as np  # noqa: PLC0415

    from modelkit.generation.distributions import divergence, log_softmax  # noqa: PLC0415

    rows = []
    for ours, theirs, rests in pairs:
        ours_rest, theirs_rest = ([rest] for rest in rests) if rests else ([], [])
        log_p, log_q = (log_softmax(np.append(*row)) for row in ((theirs, theirs_rest), (ours, ours_rest)))
        rows.append(float(divergence(log_p, log_q)))
    return float(np.mean(rows))


def _compared(pairs: Sequence[Pair]) -> tuple[Numbers, Numbers]:
    """Cosine and largest difference of each pair; a zero vector has cosine 0 to everything."""
    import numpy as np  # noqa: PLC0415

    lengths = [float(np.linalg.norm(ours) * np.linalg.norm(theirs)) or np.inf for ours, theirs, _ in pairs]
    cosine = [float(ours @ theirs) / length for (ours, theirs, _), length in zip(pairs, lengths, strict=True)]
    return np.array(cosine), np.array([float(np.abs(ours - theirs).max()) for ours, theirs, _ in pairs])


def _file(module: Any) -> Any:
    from pathlib import Path  # noqa: PLC0415

    return Path(str(module.__file__))
