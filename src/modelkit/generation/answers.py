"""What every task that writes text does once its prompts are tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from modelkit import arguments
from modelkit.errors import InputError
from modelkit.generation.decoding import Answer, Steps, decode
from modelkit.generation.sampling import Sampler
from modelkit.generation.settings import Generation
from modelkit.generation.text import Writer
from modelkit.tokenizer import in_batches

Ids = Sequence[int]

TOGETHER = 16
"""Prompts that are answered at once; each keeps its keys and values in memory."""


class Written(NamedTuple):
    """What a model has read, and what it, or somebody else, wrote after that."""

    prompt: list[int]
    answer: list[int]
    """A token that ends an answer is its last."""
    text: str
    """The answer without special tokens."""
    ended: bool = True
    """False when it had all the tokens it may have, and none of them ended it."""


class Answers:
    """Answers to prompts that are tokens. Holds no state of any text, so calls from several threads do not meet."""

    def __init__(self, steps: Callable[[], Steps], tokenizer: tokenizers.Tokenizer, ends: frozenset[int]) -> None:
        """`steps` makes an adapter that has read nothing yet."""
        self._steps, self._tokenizer, self._ends = steps, tokenizer, ends

    def all(
        self, prompts: Sequence[Ids], limits: Sequence[int], settings: Generation, seed: int | None
    ) -> list[Written]:
        """One answer per prompt, in order; `limits` is how many tokens each may have.

        Each is drawn as if it were alone, whatever stands beside it.
        """
        found: dict[int, Written] = {}
        for rows in in_batches(list(map(len, prompts)), TOGETHER, inf):
            answers = [self._answer(limits[row], settings, seed) for row in rows]
            texts = [""] * len(rows)
            for place, piece in decode(self._steps(), [prompts[row] for row in rows], answers, self._ends):
                texts[place] += piece
            for row, answer, text in zip(rows, answers, texts, strict=True):
                ended = len(answer.ids) < answer.most or answer.ids[-1] in self._ends
                found[row] = Written(list(prompts[row]), answer.ids, text, ended)
        return [found[row] for row in range(len(prompts))]

    def stream(self, prompt: Ids, limit: int, settings: Generation, seed: int | None) -> Iterator[str]:
        """The pieces of one text as they become certain; joined they are what `all` gives."""
        answer = self._answer(limit, settings, seed)
        return (piece for _, piece in decode(self._steps(), [prompt], [answer], self._ends))

    def scores(self, prompts: Sequence[Ids], width: int, batch_size: int) -> npt.NDArray[np.float32]:
        """float32[len(prompts), width]: the scores of the token after each prompt."""
        rows: npt.NDArray[np.float32] = np.empty((len(prompts), width), np.float32)
        # No bound on the tokens: what a graph scores at once is bounded where it is run.
        for batch in in_batches(list(map(len, prompts)), batch_size, inf):
            rows[batch] = self._steps().first([prompts[row] for row in batch])
        return rows

    def forced(self, written: Iterable[Written], cached: bool) -> Iterator[npt.NDArray[np.float32]]:
        """For each answer float32[its tokens, vocabulary]: what the model gives each token after all before it.

        Teacher forcing (Williams and Zipser 1989, doi:10.1162/neco.1989.1.2.270), one text at a time, so that no more
        than one text's scores are in memory: all tokens at once, or `cached`, in the steps in which they are written.
        """
        for one in written:
            steps = self._steps()
            yield _stepped(steps, one) if cached else steps.forced(one.prompt, one.answer)

    def _answer(self, limit: int, settings: Generation, seed: int | None) -> Answer:
        return Answer(Sampler(settings, seed), Writer(self._text, settings.stop), limit)

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _stepped(steps: Steps, written: Written) -> npt.NDArray[np.float32]:
    rows = [steps.first([written.prompt]), *(steps.following([token]) for token in written.answer[:-1])]
    return np.concatenate(rows)[: len(written.answer)]


def encoded(tokenizer: tokenizers.Tokenizer, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
    """The ids of each text. Raises `InputError` for what is none, is empty, or the tokenizer makes nothing of."""
    texts = arguments.texts("texts", texts)
    found = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=special)]
    for number, (text, ids) in enumerate(zip(texts, found, strict=True)):
        if not text or not ids:
            raise InputError(
                f"prompt {number + 1} of {len(texts)} is empty", hint="give the model a text to go on from"
            )
    return found


def one_or_many(name: str, given: str | Sequence[str], answer: Callable[[list[str]], list[str]]) -> Any:
    """A text for a text, a list for a list. Raises `InputError`, by the argument's `name`, for anything else."""
    if isinstance(given, str):
        return answer([arguments.text(name, given)])[0]
    return answer(arguments.texts(name, given))


def too_long(tokens: int, longest: int, hint: str) -> InputError:
    """Of a prompt that does not fit."""
    return InputError(f"the prompt has {tokens} tokens, {tokens - longest} more than the {longest} that fit", hint=hint)
