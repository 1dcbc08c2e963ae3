"""A text gets the same outputs alone and padded in a batch of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelkit.limits import at_least, judge
from modelkit.vocabulary import Subject, Verdict

VERSION = 1
PROMISE = "a text's vector does not depend on the texts it shares a batch with"
BATCH = 32
WORST = 5


@dataclass(frozen=True)
class Options:
    """Least cosine between a text's vector alone and in a padded batch of 32."""

    batch_cosine_min: float = at_least(0.9999)


def check(subject: Subject, limits: Options) -> Verdict:
    """Run 32 texts of all lengths one by one and then together, in as few batches as the task makes of them."""
    import numpy as np  # noqa: PLC0415

    rows = spread(subject.corpus)
    texts = [row["text"] for row in rows]
    model = subject.open(subject.artifact)
    alone, together = (np.asarray(model.outputs(texts, batch_size=size), np.float64) for size in (1, BATCH))
    if len(broken := np.flatnonzero(~(np.isfinite(alone) & np.isfinite(together)).all(1))):
        sentence = f"the vector of text {rows[broken[0]]['id']} is not finite ({len(broken)} such texts)"
        return Verdict("invariance", "failed", sentence)
    lengths = np.linalg.norm(alone, axis=1) * np.linalg.norm(together, axis=1)
    cosine = (alone * together).sum(1) / np.where(lengths > 0, lengths, np.inf)
    order = np.argsort(cosine, kind="stable")[:WORST]
    worst = tuple({"id": rows[n]["id"], "one_minus_cosine": float(1 - cosine[n])} for n in order)
    return judge("invariance", {"batch_cosine_min": float(cosine.min())}, limits, worst)


def spread(corpus: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """32 texts from the shortest to the longest, so that the short ones are padded as far as the corpus allows."""
    ordered = sorted(corpus, key=lambda row: (len(row["text"]), row["id"]))
    if len(ordered) <= BATCH:
        return ordered
    return [ordered[n * (len(ordered) - 1) // (BATCH - 1)] for n in range(BATCH)]
