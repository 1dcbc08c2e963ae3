"""Vectors of the artifact point where the float32 model's do."""

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

    Vectors = npt.NDArray[np.float64]

VERSION = 2
NEEDS = ("vectors",)
PROMISE = "every text of the corpus has nearly the vector that the float32 model gives it"
WORST = 5


@dataclass(frozen=True)
class Options:
    """Cosine to the float32 model over the corpus."""

    cosine_mean: float = at_least(0.975)
    cosine_p1: float = at_least(0.93)
    cosine_min: float = at_least(0.91)


def check(subject: Subject, limits: Options) -> Verdict:
    """Compare the corpus outputs of artifact and reference. A vector that is not finite fails.

    Raises `CheckError` when there is nothing to compare with: an empty corpus, a reference that is not finite.
    """
    import numpy as np  # noqa: PLC0415

    ours, theirs = (np.asarray(subject.outputs(one), np.float64) for one in (subject.artifact, subject.reference))
    if not len(theirs):
        raise CheckError("the corpus is empty", hint="write some texts")
    if verdict := distances.refused("parity", ours, theirs, subject.corpus):
        return verdict
    cosine = 1 - distances.of_vectors(ours, theirs)
    measured = {
        "cosine_mean": float(cosine.mean()),
        "cosine_p1": float(np.percentile(cosine, 1)),
        "cosine_min": float(cosine.min()),
    }
    return judge("parity", measured, limits, _worst(subject, cosine))


def _worst(subject: Subject, cosine: Vectors) -> tuple[dict[str, Any], ...]:
    import numpy as np  # noqa: PLC0415

    rows = [(subject.corpus[n], float(cosine[n])) for n in np.argsort(cosine, kind="stable")[:WORST]]
    return tuple({"id": row["id"], "group": row["group"], "cosine": round(value, 6), "text": row["text"][:80]}
                 for row, value in rows)  # fmt: skip
