"""The place of a text in its batch makes no difference."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelkit.limits import at_least, judge
from modelkit.vocabulary import Subject, Verdict

VERSION = 1
PROMISE = "in whatever order texts come, each gets the same, and its own"
TEXTS, TOGETHER = 6, 8
SHUFFLES = 2
WORST = 5


@dataclass(frozen=True)
class Options:
    """Least cosine between a text's vectors in two orders, and between its rows of logits. None is no limit."""

    cosine_min: float | None = at_least(0.9999)
    logits_min: float | None = at_least(0.9995)


def check(subject: Subject, limits: Options) -> Verdict:
    """Batches of eight of like length, each as it is, backwards and twice shuffled; and texts of all lengths.

    Skipped for a corpus that makes no batch. Raises `CheckError` when one cannot be run.
    """
    from modelkit import distances  # noqa: PLC0415

    batches = [*batches_of(subject.corpus)]
    if not batches:
        return Verdict("order", "skipped", "the corpus has no text of several words, and no two images")
    model, distance = subject.open(subject.artifact), distances.of_task(subject.manifest)
    cases = [case for batch in batches for case in _cases(model, distance, batch)]
    cases.sort(key=lambda case: -case["one_minus_cosine"])
    worst = cases[0]
    if not worst["one_minus_cosine"] < float("inf"):
        return Verdict("order", "failed", f"what the text {worst['text']!r} gets is not finite")
    measured, limits = distances.figures(distance, worst["one_minus_cosine"], limits)
    max_abs = max(case["max_abs"] for case in cases)
    return judge("order", {**measured, "max_abs": max_abs, "batches": len(batches)}, limits, tuple(cases[:WORST]))


def batches_of(corpus: Sequence[Mapping[str, str]]) -> Iterator[list[str]]:
    """Texts that a model of this project cannot sort by their length: the words of one, from each of its places on.

    Then texts of many lengths, and images.
    """
    from modelkit.images import DATA_URL  # noqa: PLC0415

    texts = sorted((row["text"] for row in corpus if not row["text"].startswith(DATA_URL)), key=lambda t: (len(t), t))
    several = [text for text in texts if len({*turned(text, TOGETHER)}) > 1]
    for number in range(min(TEXTS, len(several))):
        # From the shorter two thirds: a batch of long texts says the same and takes its time.
        yield [*dict.fromkeys(turned(several[number * len(several) * 2 // 3 // min(TEXTS, len(several))], TOGETHER))]
    if len(texts) > 1:
        yield texts[: len(texts) * 2 // 3 : max(1, len(texts) * 2 // 3 // TOGETHER)]
    images = [row["text"] for row in corpus if row["text"].startswith(DATA_URL)]
    if len(images) > 1:
        yield images[:: -(-len(images) // TOGETHER)]


def turned(text: str, most: int) -> list[str]:
    """The words of `text` from the first on, from the second on and so forth; of a pair the words of its premise."""
    said, end, last = text.rpartition("\n")
    words = (said or last).split(" ")
    starts = range(min(most, len(words)))
    return [" ".join(words[at:] + words[:at]) + (end + last if said else "") for at in starts]


def _cases(model: Any, distance: Any, batch: Sequence[str]) -> Iterator[dict[str, Any]]:
    import numpy as np  # noqa: PLC0415

    places = list(range(len(batch)))
    straight = np.asarray(model.outputs(batch, batch_size=len(batch)))
    for number in range(-1, SHUFFLES):
        order = places[::-1] if number < 0 else random.Random(number).sample(places, len(places))
        other = np.empty_like(straight)
        other[order] = model.outputs([batch[place] for place in order], batch_size=len(batch))
        far, most = distance(straight, other), np.abs(straight - other).max(1)
        for place in places:
            yield {"one_minus_cosine": float(far[place]), "max_abs": float(most[place]), "place": place,
                   "other_place": order.index(place), "text": batch[place][:80]}  # fmt: skip
