"""No other variant of the manifest, and not the float32 model either, is smaller, closer and faster all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelkit import corpora, distances, timed
from modelkit.errors import CheckError, ModelkitError
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Artifact, Manifest, Subject, Verdict

VERSION = 1
PROMISE = "no variant of the same model, float32 included, is as small, as close to float32 and faster"
PROFILE = "full"
SIBLINGS = True
TEXTS = 24
FLOAT32 = "float32"


@dataclass(frozen=True)
class Options:
    """How many times as fast a rival that is no larger and no further from float32 may be; timings are noisy."""

    faster: float = at_most(1.05)


def reads(manifest: Manifest) -> dict[str, Any]:  # noqa: ARG001
    """The code that measures."""
    return timed.reads()


def check(subject: Subject, limits: Options) -> Verdict:
    """Compare bytes and the mean distance over the corpus; time only rivals that lose in neither.

    Raises `CheckError` when a rival cannot be built, or a measuring process does not come to an answer.
    """
    rivals = {FLOAT32: subject.reference, **_siblings(subject)}
    exact, outputs = subject.outputs(subject.reference), subject.outputs(subject.artifact)
    if told := distances.refused("frontier", outputs, exact, subject.corpus):
        return told
    distance = distances.of_task(subject.manifest)

    def standing(artifact: Artifact) -> tuple[int, float]:
        return _bytes(artifact), float(distance(subject.outputs(artifact), exact).mean())

    ours = standing(subject.artifact)
    found = {name: standing(one) for name, one in rivals.items()}
    rows: list[dict[str, Any]] = [{"variant": name, "bytes": size, "one_minus_cosine": far}
                                  for name, (size, far) in found.items() if _leads((size, far), ours)]  # fmt: skip
    measured = {"bytes": ours[0], "one_minus_cosine": ours[1], "rivals": len(rivals), "timed": len(rows)}
    if not rows:
        sentence = f"none of {len(rivals)} others is as small and as close"
        return Verdict("frontier", "passed", sentence, measured)
    timings = timed.by_turns(
        [subject.artifact, *(rivals[row["variant"]] for row in rows)],
        [row["text"] for row in corpora.spread(subject.corpus, TEXTS)],
    )
    rows = [{**row, "faster": _times(timed.medians(timings, 0, place))} for place, row in enumerate(rows, 1)]
    rows.sort(key=lambda row: -row["faster"])
    first = f"{rows[0]['variant']} is no larger and no further from float32, and {rows[0]['faster']:.3g} times as fast"
    verdict = judge("frontier", {**measured, "faster": rows[0]["faster"]}, limits, tuple(rows))
    return replace(verdict, sentence=first)


def _siblings(subject: Subject) -> Mapping[str, Artifact]:
    try:
        return subject.siblings()
    except CheckError:
        raise
    except ModelkitError as error:
        raise CheckError(f"there is nothing to compare with: {error.message}", hint=error.hint) from error


def _bytes(artifact: Artifact) -> int:
    from modelkit.graphs import model_files  # noqa: PLC0415

    return sum(artifact.files[name].size for name in model_files(artifact.files))


def _leads(theirs: tuple[int, float], ours: tuple[int, float]) -> bool:
    return all(their <= our for their, our in zip(theirs, ours, strict=True))


def _times(ratios: Mapping[str, float]) -> float:
    """Faster is who is faster one by one and in batches."""
    return min(ratios["latency_p50"], ratios["batch_time"])
