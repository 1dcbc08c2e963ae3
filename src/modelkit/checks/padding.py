"""A text gets the same outputs with pads beside it and without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelkit import corpora
from modelkit.errors import InputError
from modelkit.limits import at_least, judge
from modelkit.vocabulary import Subject, Verdict

VERSION = 2
PROMISE = "a text gets the same with any number of pads as without one"
TEXTS = 12
LONGER = (2, 5, 20)
"""How many times as long as the text its neighbour is: so many times the text itself, whose numbers it shares."""
SHORTEST, LONGEST = 4, 1200
"""Characters of a text that is padded, and of its longest neighbour."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """Least cosine between a text's vectors with and without pads, and between its rows of logits. None is no limit."""

    cosine_min: float | None = at_least(0.9999)
    logits_min: float | None = at_least(0.9995)


def check(subject: Subject, limits: Options) -> Verdict:
    """Twelve short texts, each beside itself, where nothing is padded, and beside longer ones made of itself.

    Skipped for a corpus without texts: images are all of one size. Raises `CheckError` when a text cannot be run.
    """
    from modelkit import distances  # noqa: PLC0415

    rows = short(subject.corpus)
    if not rows:
        return Verdict("padding", "skipped", "the corpus has no text that could be padded")
    model, distance = subject.open(subject.artifact), distances.of_task(subject.manifest)
    cases = [case for row in rows for case in _cases(model, distance, row)]
    if not cases:
        return Verdict("padding", "skipped", "the model takes no text that is twice as long as those of the corpus")
    cases.sort(key=lambda case: -case["one_minus_cosine"])
    worst = cases[0]
    if not worst["one_minus_cosine"] < float("inf"):
        return Verdict("padding", "failed", f"what text {worst['id']} gets beside a longer one is not finite")
    measured, limits = distances.figures(distance, worst["one_minus_cosine"], limits)
    max_abs = max(case["max_abs"] for case in cases)
    return judge("padding", {**measured, "max_abs": max_abs, "cases": len(cases)}, limits, tuple(cases[:WORST]))


def short(corpus: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Twelve texts, evenly over the shorter half of those that are no images."""
    from modelkit.images import DATA_URL  # noqa: PLC0415

    texts = [row for row in corpus if not row["text"].startswith(DATA_URL) and len(row["text"]) >= SHORTEST]
    return corpora.shorter(texts, TEXTS)


def _cases(model: Any, distance: Any, row: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    import numpy as np  # noqa: PLC0415

    text = row["text"]
    bare = np.asarray(model.outputs([text, text], batch_size=2))[:1]
    for times in LONGER:
        if len(longer := repeated(text, times)) > LONGEST:
            continue
        try:
            padded = np.asarray(model.outputs([text, longer], batch_size=2))[:1]
        except InputError:
            # Longer than what it takes.
            continue
        far, most = float(distance(bare, padded)[0]), float(np.abs(bare - padded).max())
        yield {"id": row["id"], "one_minus_cosine": far, "max_abs": most, "times": times, "text": text[:80]}


def repeated(text: str, times: int) -> str:
    """`text` so many times; of a pair written as one text the premise, so that its last line stays the hypothesis."""
    said, end, last = text.rpartition("\n")
    return " ".join([said] * times) + end + last if said else " ".join([text] * times)
