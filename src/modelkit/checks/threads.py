"""One thread and several give the same outputs."""

from __future__ import annotations

from dataclasses import dataclass

from modelkit import corpora
from modelkit.limits import at_least, judge
from modelkit.vocabulary import Subject, Verdict

VERSION = 2
PROMISE = "one thread and several give the same"
TEXTS = 25
MOST = 4
"""Threads: one for each core, and no more than this, but two on a machine of one core."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """Least cosine between a text's vectors by one thread and by several, and between its rows of logits. None is no
    limit."""

    cosine_min: float | None = at_least(0.9999)
    logits_min: float | None = at_least(0.9995)


def check(subject: Subject, limits: Options) -> Verdict:
    """Run 25 texts of all lengths by one thread, and by as many as there are cores, one by one and in batches.

    Raises `CheckError` when a text cannot be run.
    """
    import numpy as np  # noqa: PLC0415

    from modelkit import distances, runtime  # noqa: PLC0415

    threads = min(max(2, runtime.cpu()["cores"]), MOST)
    rows = corpora.spread(subject.corpus, TEXTS)
    texts = [row["text"] for row in rows]
    one, several = (
        np.concatenate([model.outputs(texts, batch_size=size) for size in (1, 8)])
        for model in (subject.open(subject.artifact, threads=number) for number in (1, threads))
    )
    distance = distances.of_task(subject.manifest)
    far, most = distance(one, several), np.abs(one - several).max(1)
    if len(wild := np.flatnonzero(~np.isfinite(far))):
        return Verdict("threads", "failed", f"what text {rows[wild[0] % len(rows)]['id']} gets is not finite")
    measured, limits = distances.figures(distance, float(far.max()), limits)
    # A zero equals another of the other sign, and has other bits.
    same = ((one == several) & (np.signbit(one) == np.signbit(several))).all(1)
    told = {"max_abs": float(most.max()), "same_bits": float(same.mean()), "threads": threads, "texts": len(rows)}
    worst = tuple(
        {"id": rows[n % len(rows)]["id"], "one_minus_cosine": float(far[n]), "max_abs": float(most[n]),
         "alone": bool(n < len(rows)), "text": rows[n % len(rows)]["text"][:80]}
        for n in np.argsort(-far, kind="stable")[:WORST]
    )  # fmt: skip
    return judge("threads", {**measured, **told}, limits, worst)
