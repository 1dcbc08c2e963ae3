"""The loop: scores, one token for each text that has not ended, and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelkit.generation.sampling import Sampler
from modelkit.generation.text import Writer


class Steps(Protocol):
    """A model that remembers what it has read, for several texts at once."""

    def first(self, prompts: Sequence[Sequence[int]]) -> Any:
        """Read the prompts: the scores of the token after each, float32[batch, vocab]."""

    def following(self, tokens: Sequence[int]) -> Any:
        """Read one token more of each text: the scores of the next, float32[batch, vocab]."""

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the texts at these places of the batch only."""

    def forced(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        """The scores of each token of `answer` after those before it, read without a cache: float32[answer, vocab]."""


@dataclass(frozen=True)
class Answer:
    """One text that is being written: how its tokens are chosen, shown, and how many there may be."""

    sampler: Sampler
    writer: Writer
    most: int
    ids: list[int] = field(default_factory=list)
    """The tokens chosen so far; one that ends the text is among them."""


def decode(
    steps: Steps, prompts: Sequence[Sequence[int]], answers: Sequence[Answer], ends: frozenset[int]
) -> Iterator[tuple[int, str]]:
    """Pieces of the answers as (number of the prompt, text); those of one answer joined are its text.

    An answer ends before a token of `ends`, before a stop string, or with its last allowed token. A text that has
    ended leaves the batch, so the others no longer wait for it.
    """
    going = list(range(len(prompts)))
    logits = steps.first(prompts)
    while going:
        tokens = [answers[row].sampler(scores) for row, scores in zip(going, logits, strict=True)]
        stay = []
        for place, (row, token) in enumerate(zip(going, tokens, strict=True)):
            piece, over = _write(answers[row], token, token in ends)
            if piece:
                yield row, piece
            if not over:
                stay.append(place)
        if len(stay) < len(going):
            going = [going[place] for place in stay]
            steps.keep(stay)
        if going:
            logits = steps.following([tokens[place] for place in stay])


def _write(answer: Answer, token: int, ended: bool) -> tuple[str, bool]:
    """The piece that a token adds, and whether the answer is over."""
    answer.ids.append(token)
    piece = "" if ended else answer.writer.push(token)
    over = ended or answer.writer.stopped or len(answer.ids) == answer.most
    return piece + (answer.writer.end() if over else ""), over
