"""The vectors point where the float32 model's do, and have the same neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelkit.errors import CheckError
from modelkit.limits import at_least, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float64]

VERSION = 1
NEEDS = ("vectors",)
PROMISE = "every text of the corpus has nearly the vector, and nearly the neighbours, that the float32 model gives it"
NEIGHBOURS = 10
WORST = 5


@dataclass(frozen=True)
class Options:
    """Cosine to the float32 model over the corpus, and the share of each text's ten nearest texts that are kept."""

    cosine_mean: float = at_least(0.975)
    cosine_p1: float = at_least(0.93)
    cosine_min: float = at_least(0.91)
    top10: float = at_least(0.85)


def check(subject: Subject, limits: Options) -> Verdict:
    """Compare the corpus outputs of artifact and reference. A vector that is not finite fails.

    Raises `CheckError` when there is nothing to compare with: a corpus of one text, a reference that is not finite.
    """
    import numpy as np  # noqa: PLC0415

    ours, theirs = (np.asarray(subject.outputs(one), np.float64) for one in (subject.artifact, subject.reference))
    if len(theirs) < 2:
        raise CheckError(f"a corpus of {len(theirs)} texts has no neighbours", hint="write at least two texts")
    if not np.isfinite(theirs).all():
        raise CheckError("the float32 model's own vectors are not finite", hint="look at the weights")
    if ours.shape != theirs.shape:
        sentence = f"the vectors have the shape {list(ours.shape)}, those of the float32 model {list(theirs.shape)}"
        return Verdict("parity", "failed", sentence)
    if len(broken := np.flatnonzero(~np.isfinite(ours).all(1))):
        row = subject.corpus[broken[0]]
        return Verdict("parity", "failed", f"the vector of text {row['id']} is not finite ({len(broken)} such texts)")
    cosine = cosines(ours, theirs)
    measured = {
        "cosine_mean": float(cosine.mean()),
        "cosine_p1": float(np.percentile(cosine, 1)),
        "cosine_min": float(cosine.min()),
        "top10": overlap(ours, theirs),
    }
    return judge("parity", measured, limits, _worst(subject, cosine))


def cosines(ours: Vectors, theirs: Vectors) -> Vectors:
    """Row by row: two float64[n, width] -> float64[n]; a zero vector has cosine 0 to everything."""
    import numpy as np  # noqa: PLC0415

    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return np.asarray((ours * theirs).sum(1) / np.where(lengths > 0, lengths, np.inf))


def overlap(ours: Vectors, theirs: Vectors) -> float:
    """Mean share of a text's ten nearest texts (by cosine, itself left out) that both have."""
    import numpy as np  # noqa: PLC0415

    nearest = [_neighbours(vectors) for vectors in (ours, theirs)]
    shared = [len(set(a) & set(b)) / len(a) for a, b in zip(*nearest, strict=True)]
    return float(np.mean(shared))


def _neighbours(vectors: Vectors) -> Any:
    import numpy as np  # noqa: PLC0415

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    # Rounded, and sorted stably: equal texts must not swap places for a difference in the last bit.
    similar = np.round(unit @ unit.T, 9)
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(vectors) - 1)].tolist()


def _worst(subject: Subject, cosine: Vectors) -> tuple[dict[str, Any], ...]:
    import numpy as np  # noqa: PLC0415

    rows = [(subject.corpus[n], float(cosine[n])) for n in np.argsort(cosine, kind="stable")[:WORST]]
    return tuple({"id": row["id"], "group": row["group"], "cosine": round(value, 6), "text": row["text"][:80]}
                 for row, value in rows)  # fmt: skip
