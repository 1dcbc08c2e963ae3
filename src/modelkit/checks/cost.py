"""What the artifact costs beside its float32 model: time, memory and loading, as ratios of one run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from modelkit import corpora, timed
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Manifest, Subject, Verdict

VERSION = 2
PROMISE = "the artifact is not much slower, larger in memory or slower to load than its float32 model"
PROFILE = "full"
TEXTS = 24
WORST = 5


@dataclass(frozen=True)
class Options:
    """The artifact's figure as a multiple of the float32 model's, measured in the same run. None is no limit."""

    latency_p50: float | None = at_most(1.5)
    latency_p95: float | None = at_most(1.5)
    batch_time: float | None = at_most(1.5)
    memory: float | None = at_most(1.5)
    load: float | None = at_most(6.0)


def reads(manifest: Manifest) -> dict[str, Any]:  # noqa: ARG001
    """The code that measures."""
    return timed.reads()


def check(subject: Subject, limits: Options) -> Verdict:
    """Measure both in processes of their own, by turns; ratios are medians of the rounds' own ratios.

    Raises `CheckError` when a process does not come to an answer.
    """
    rows = corpora.spread(subject.corpus, TEXTS)
    texts = [row["text"] for row in rows]
    rounds = timed.by_turns([subject.artifact, subject.reference], texts)
    measured = timed.medians(rounds, 0, 1)
    ours, theirs = rounds[-1]
    told = {
        "throughput": 1 / measured["batch_time"],
        "ms_per_text": 1e3 * median(ours["alone"]),
        "memory_bytes": ours["memory"],
        "texts": len(texts),
        "threads": 1,
    }
    ratios = [a / b for a, b in zip(ours["alone"], theirs["alone"], strict=True)]
    slowest = sorted(range(len(rows)), key=lambda n: -ratios[n])[:WORST]
    worst = tuple({"id": rows[n]["id"], "latency": round(ratios[n], 3), "text": rows[n]["text"][:80]} for n in slowest)
    return judge("cost", {**measured, **told}, limits, worst)
