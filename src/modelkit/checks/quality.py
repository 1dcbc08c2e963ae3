"""What vectors are for: texts of one topic lie together as they do in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelkit import corpora, distances
from modelkit.errors import CheckError
from modelkit.limits import at_least, judge
from modelkit.vocabulary import Manifest, Subject, Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.int64]

VERSION = 1
NEEDS = ("vectors",)
PROFILE = "full"
PROMISE = "texts of known topics are told apart nearly as often as by the float32 model"
FLOOR = 0.5
"""Float32 accuracy below which a topic is a guess too often for a ratio of two accuracies to say anything."""
WORST = 5
Z = 1.959963984540054
"""Of the standard normal distribution 95 % lie within this distance of 0."""


@dataclass(frozen=True)
class Options:
    """The artifact's accuracy as a share of the float32 model's."""

    kept: float = at_least(0.95)


def reads(manifest: Manifest) -> dict[str, Any]:
    """What a verdict depends on beside the artifact: the texts and their topics."""
    found = corpora.labelled(manifest)
    return {"labelled": found[1] if found else None}


def check(subject: Subject, limits: Options) -> Verdict:
    """Give each labelled text the topic whose other texts' centroid is nearest, with artifact and reference.

    Skipped when there are no labelled texts for the task, or the float32 model itself can hardly tell them apart.
    Raises `CheckError` for texts of which no topic can be learned, and for a reference that is not finite.
    """
    import numpy as np  # noqa: PLC0415

    labelled = corpora.labelled(subject.manifest)
    if labelled is None:
        kind = subject.manifest.task.kind
        sentence = f"there are no texts of known topics for {kind}, corpora/labelled/{kind}.jsonl"
        return Verdict("quality", "skipped", sentence)
    rows = labelled[0]
    topics, own = _topics(rows)
    texts = [row["text"] for row in rows]
    ours, theirs = (np.asarray(subject.open(one).outputs(texts), np.float64)
                    for one in (subject.artifact, subject.reference))  # fmt: skip
    if verdict := distances.refused("quality", ours, theirs, rows):
        return verdict
    near = nearness(ours, own)
    found, expected = near.argmax(1) == own, nearness(theirs, own).argmax(1) == own
    if (reached := float(expected.mean())) < FLOOR:
        sentence = f"the float32 model itself finds the topic of {reached:.0%} of the texts only"
        return Verdict("quality", "skipped", sentence, {"float32_accuracy": reached})
    low, high = wilson(int(found.sum()), len(found))
    measured = {
        "kept": float(found.sum() / expected.sum()),
        "accuracy": float(found.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "float32_accuracy": reached,
        "lost": int((expected & ~found).sum()),
        "won": int((found & ~expected).sum()),
        "texts": len(rows),
    }
    lost = np.flatnonzero(expected & ~found)
    short = sorted(lost, key=lambda n: near[n, own[n]] - near[n].max())[:WORST]
    worst = tuple({"id": rows[n]["id"], "topic": rows[n]["group"], "found": topics[near[n].argmax()],
                   "text": rows[n]["text"][:80]} for n in short)  # fmt: skip
    return judge("quality", measured, limits, worst)


def nearness(vectors: Floats, own: Numbers) -> Floats:
    """float64[n, width] and the topics' numbers, int64[n] -> float64[n, topics]: cosine of each vector to the centroid
    of each topic's vectors of length one, its own left out (leave-one-out; Rocchio's nearest centroid)."""
    import numpy as np  # noqa: PLC0415

    units = distances.unit(vectors)
    members = np.eye(own.max() + 1)[own]
    sums = members.T @ units
    near = units @ distances.unit(sums).T
    others = distances.unit(sums[own] - units)
    near[np.arange(len(own)), own] = (units * others).sum(1)
    return np.asarray(near)


def wilson(right: int, of: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    from math import sqrt  # noqa: PLC0415

    share, square = right / of, Z**2 / of
    centre, half = share + square / 2, Z * sqrt(share * (1 - share) / of + square / (4 * of))
    return max(0.0, (centre - half) / (1 + square)), min(1.0, (centre + half) / (1 + square))


def _topics(rows: Sequence[Mapping[str, str]]) -> tuple[list[str], Numbers]:
    """The topics, and the number of each row's own."""
    import numpy as np  # noqa: PLC0415

    topics, own, counts = np.unique([row["group"] for row in rows], return_inverse=True, return_counts=True)
    if len(topics) < 2 or counts.min() < 2:
        raise CheckError(
            f"the labelled texts have {len(topics)} topics, the smallest of {counts.min()} texts",
            hint="write two topics of two texts each at least",
        )
    return topics.tolist(), own
