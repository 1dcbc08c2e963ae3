"""A search among the texts finds what it finds with the float32 model."""

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

    Floats = npt.NDArray[np.float64]
    Order = npt.NDArray[np.int64]

VERSION = 1
NEEDS = ("vectors",)
PROMISE = "every text of the corpus has nearly the neighbours, and all pairs nearly the order, that float32 gives them"
NEIGHBOURS = 10
WORST = 5


@dataclass(frozen=True)
class Options:
    """Shares of nearest texts that are kept, and the correlation of all similarities by rank."""

    top1: float = at_least(0.7)
    top10: float = at_least(0.85)
    spearman: float = at_least(0.96)


def check(subject: Subject, limits: Options) -> Verdict:
    """Search the corpus for each of its texts, with the artifact and with the reference. What is not finite fails.

    Raises `CheckError` when there is no order to keep: fewer than three texts, similarities that are all equal, a
    reference that is not finite.
    """
    import numpy as np  # noqa: PLC0415

    ours, theirs = (np.asarray(subject.outputs(one), np.float64) for one in (subject.artifact, subject.reference))
    if len(theirs) < 3:
        raise CheckError(f"a corpus of {len(theirs)} texts has no order of neighbours", hint="write at least three")
    if verdict := distances.refused("retrieval", ours, theirs, subject.corpus):
        return verdict
    found, expected = distances.similarities(ours), distances.similarities(theirs)
    pairs = np.triu_indices(len(theirs), 1)
    if np.ptp(expected[pairs]) == 0:
        raise CheckError("to the float32 model all texts are equally near", hint="look at the weights and the corpus")
    kept, same = overlaps(found, expected), nearest(found, 1)[:, 0] == nearest(expected, 1)[:, 0]
    measured = {
        "top1": float(same.mean()),
        "top10": float(kept.mean()),
        "spearman": spearman(found[pairs], expected[pairs]),
    }
    return judge("retrieval", measured, limits, _worst(subject, kept, same))


def nearest(similar: Floats, count: int) -> Order:
    """float64[n, n] -> int64[n, count]: the texts of largest similarity, itself left out; ties go to the earlier."""
    import numpy as np  # noqa: PLC0415

    others = similar.copy()
    np.fill_diagonal(others, -np.inf)
    return np.argsort(-others, axis=1, kind="stable")[:, :count]


def overlaps(found: Floats, expected: Floats) -> Floats:
    """For each text the share of its ten nearest (of fewer than twelve texts: all but the farthest) that both have."""
    import numpy as np  # noqa: PLC0415

    count = min(NEIGHBOURS, len(expected) - 2)
    both = zip(nearest(found, count).tolist(), nearest(expected, count).tolist(), strict=True)
    return np.array([len(set(a) & set(b)) / count for a, b in both])


def spearman(ours: Floats, theirs: Floats) -> float:
    """Spearman's rank correlation of two float64[n], -1 to 1; 0 when one of them is constant, which has no order.

    Spearman 1904, "The Proof and Measurement of Association between Two Things" (doi:10.2307/1412159): the correlation
    of Pearson of the ranks.
    """
    import numpy as np  # noqa: PLC0415

    one, other = (values - values.mean() for values in (ranks(ours), ranks(theirs)))
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(np.clip(one @ other / lengths, -1, 1)) if lengths else 0.0


def ranks(values: Floats) -> Floats:
    """Places from 1 in rising order, float64[n] -> float64[n]; equal values share the mean of their places."""
    import numpy as np  # noqa: PLC0415

    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which])


def _worst(subject: Subject, kept: Floats, same: Any) -> tuple[dict[str, Any], ...]:
    import numpy as np  # noqa: PLC0415

    rows = [(subject.corpus[n], n) for n in np.argsort(kept, kind="stable")[:WORST]]
    return tuple({"id": row["id"], "group": row["group"], "top10": round(float(kept[n]), 6), "top1": bool(same[n]),
                  "text": row["text"][:80]} for row, n in rows)  # fmt: skip
