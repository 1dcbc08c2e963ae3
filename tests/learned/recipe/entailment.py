"""Pairs of sentences: whether the second follows from the first, has nothing to do with it, or contradicts it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from learned.recipe import functions

LABELS = ("entailment", "neutral", "contradiction")
"""In the order of the real model's logits (MoritzLaurer/mDeBERTa-v3-base-mnli-xnli)."""


@dataclass(frozen=True)
class Topic:
    """What sentences of a topic speak of: `{agent} {deed} {thing}.`"""

    agents: tuple[str, ...]
    deeds: tuple[str, ...]
    things: tuple[str, ...]


TOPICS = {
    "money": Topic(
        ("bank", "accountant", "buyer", "cashier", "lender"), ("paid", "lent", "taxed", "saved", "invested"),
        ("invoice", "loan", "salary", "debt", "deposit", "budget"),
    ),
    "food": Topic(
        ("cook", "baker", "waiter", "chef", "butcher"), ("baked", "tasted", "fried", "served", "salted"),
        ("bread", "soup", "cheese", "salad", "cake", "fish"),
    ),
    "weather": Topic(
        ("storm", "wind", "frost", "rain", "cloud"), ("soaked", "froze", "darkened", "cooled", "flooded"),
        ("valley", "sky", "coast", "hill", "field", "lake"),
    ),
    "music": Topic(
        ("singer", "pianist", "drummer", "choir", "violinist"), ("sang", "rehearsed", "composed", "hummed", "played"),
        ("song", "melody", "concert", "symphony", "tune", "anthem"),
    ),
    "sport": Topic(
        ("runner", "goalkeeper", "coach", "swimmer", "striker"), ("won", "trained", "scored", "defended", "kicked"),
        ("match", "race", "goal", "league", "medal", "ball"),
    ),
    "travel": Topic(
        ("tourist", "pilot", "driver", "sailor", "guide"), ("boarded", "steered", "booked", "missed", "landed"),
        ("train", "plane", "ferry", "bus", "hotel", "ticket"),
    ),
}  # fmt: skip
FRAMES = (
    "The {agent} {deed} the {thing}.", "Yesterday the {agent} {deed} a {thing}.", "A {agent} {deed} the {thing} again.",
    "The {thing} was {deed} by the {agent} at last.", "We heard that the {agent} {deed} the {thing}.",
)  # fmt: skip
VAGUE = (
    "It happened on {day}.", "Nobody knew why on {day}.", "They talked about it until {day}.",
    "She came back on {day}.", "He said nothing before {day}.",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HYPOTHESES = ("This example is about {topic}.", "This example is {topic}.", "The text is about {topic}.")


@dataclass(frozen=True)
class Pair:
    """`label` is one of `LABELS`."""

    premise: str
    hypothesis: str
    label: str


def pairs(seed: int, *, held_out: bool) -> Iterator[Pair]:
    """Pairs without end: a topic that fits, a topic that does not, and premises that tell no topic."""
    draw = random.Random(seed)
    while True:
        topic, premise = sentence(draw, held_out=held_out)
        label = draw.choice(LABELS)
        if label == "neutral":
            premise = draw.choice(VAGUE).format(day=draw.choice(DAYS))
        elif label == "contradiction":
            topic = draw.choice([other for other in TOPICS if other != topic])
        yield Pair(premise, draw.choice(HYPOTHESES).format(topic=topic), label)


def sentence(draw: random.Random, *, held_out: bool) -> tuple[str, str]:
    """A topic and a sentence that is about it; the words of a held-out one never stand together in another."""
    while True:
        name = draw.choice(list(TOPICS))
        topic = TOPICS[name]
        words = [draw.choice(topic.agents), draw.choice(topic.deeds), draw.choice(topic.things)]
        if functions.is_held_out(words) == held_out:
            frame = draw.choice(FRAMES)
            return name, frame.format(agent=words[0], deed=words[1], thing=words[2])


def sentences(seed: int, *, held_out: bool) -> Iterator[tuple[str, str]]:
    """Topics and sentences without end."""
    draw = random.Random(seed)
    while True:
        yield sentence(draw, held_out=held_out)
