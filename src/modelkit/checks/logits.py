"""The scores a model decides by: they have nearly the shape, and nearly the order, that the float32 model's have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelkit import distances
from modelkit.errors import CheckError
from modelkit.limits import at_least, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[np.float64]

VERSION = 1
NEEDS = ("logits",)
PROMISE = "for every text of the corpus the model ranks its answers nearly as the float32 model does"
LARGEST = 10
WORST = 5


@dataclass(frozen=True)
class Options:
    """Cosine of each row of logits to the float32 model's, and the shares of rows and of large logits that are kept."""

    cosine_mean: float = at_least(0.95)
    cosine_min: float = at_least(0.4)
    same_top: float = at_least(0.85)
    top10: float = at_least(0.7)


def check(subject: Subject, limits: Options) -> Verdict:
    """Compare the corpus outputs of artifact and reference. A row that is not finite fails.

    Raises `CheckError` when there is nothing to compare with: an empty corpus, a single logit, a reference that is not
    finite.
    """
    import numpy as np  # noqa: PLC0415

    ours, theirs = (np.asarray(subject.outputs(one), np.float64) for one in (subject.artifact, subject.reference))
    if theirs.ndim != 2 or not len(theirs) or theirs.shape[1] < 2:
        raise CheckError(f"logits of the shape {list(theirs.shape)} rank nothing", hint="rank two answers at least")
    if verdict := distances.refused("logits", ours, theirs, subject.corpus, "a logit"):
        return verdict
    cosine, same = 1 - distances.of_logits(ours, theirs), ours.argmax(1) == theirs.argmax(1)
    measured = {
        "cosine_mean": float(cosine.mean()),
        "cosine_min": float(cosine.min()),
        "same_top": float(same.mean()),
        "top10": overlap(ours, theirs),
    }
    return judge("logits", measured, limits, _worst(subject, cosine, same))


def overlap(ours: Rows, theirs: Rows) -> float:
    """Mean share of a row's ten largest logits that both have; of fewer than eleven, all but the smallest."""
    import numpy as np  # noqa: PLC0415

    kept = min(LARGEST, theirs.shape[1] - 1)
    best = [np.argsort(-rows, axis=1, kind="stable")[:, :kept].tolist() for rows in (ours, theirs)]
    return float(np.mean([len(set(a) & set(b)) / kept for a, b in zip(*best, strict=True)]))


def _worst(subject: Subject, cosine: Rows, same: Any) -> tuple[dict[str, Any], ...]:
    import numpy as np  # noqa: PLC0415

    rows = [(subject.corpus[n], n) for n in np.argsort(cosine, kind="stable")[:WORST]]
    return tuple({"id": row["id"], "group": row["group"], "cosine": round(float(cosine[n]), 6),
                  "same_top": bool(same[n]), "text": row["text"][:80]} for row, n in rows)  # fmt: skip
