"""How near models' vectors are to the first one's; a process of its own, started by speed.py with one file per model.

Written apart from modelkit's own checks, so that a mistake there is not repeated here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

NEIGHBOURS = 10


def main() -> None:
    """Print one JSON object per model."""
    loaded = [np.load(path) for path in sys.argv[1:]]
    reference = _unit(loaded[0]["alone"])
    print(json.dumps([_figures(reference, _unit(one["alone"]), _unit(one["together"])) for one in loaded]))


def _figures(reference: Any, alone: Any, together: Any) -> dict[str, float]:
    cosine = (reference * alone).sum(1)
    shared = [len(set(a) & set(b)) for a, b in zip(_nearest(reference), _nearest(alone), strict=True)]
    return {
        "mean": float(cosine.mean()),
        "p1": float(np.percentile(cosine, 1)),
        "min": float(cosine.min()),
        "top10": float(np.mean(shared)) / NEIGHBOURS,
        "spearman": _spearman(reference, alone),
        "batch": float((alone * together).sum(1).min()),
    }


def _unit(vectors: Any) -> Any:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def _spearman(reference: Any, other: Any) -> float:
    """Rank correlation of the similarities of all pairs; those of real texts have no ties."""
    pairs = np.triu_indices(len(reference), 1)
    ranks = [np.argsort(np.argsort((vectors @ vectors.T)[pairs])) for vectors in (reference, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def _nearest(vectors: Any) -> list[list[int]]:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, :NEIGHBOURS].tolist()


if __name__ == "__main__":
    main()
