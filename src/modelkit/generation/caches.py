"""Models that remember what they have read: one small adapter for each layout of graphs, by optimum's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelkit.errors import StageError
from modelkit.runtime import Session, Sessions
from modelkit.tokenizer import padded
from modelkit.vocabulary import WHOLE

PAST, PRESENT, LOGITS, BRANCH = "past_key_values.", "present.", "logits", "use_cache_branch"
ENCODER = ".encoder."
SCORES_AT_ONCE = 2**29
"""Bytes of scores that one run may give: a graph scores every token of a prompt, and only the last counts."""

Arrays = dict[str, npt.NDArray[Any]]


class Causal:
    """One graph that reads a text from left to right. Short prompts are padded on the left."""

    def __init__(self, session: Session, pad: int) -> None:
        """Raises `StageError` for a graph that lacks what decoding needs."""
        refuse_other(session, {"input_ids", "attention_mask", "position_ids"}, {"input_ids", "attention_mask"})
        self._session, self._pad = session, pad
        self._mask: npt.NDArray[np.int64] = np.zeros((0, 0), np.int64)
        self._pasts: Arrays = {}

    def first(self, prompts: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        """float32[batch, vocab]; a long prompt is read in parts, so that its scores need little memory."""
        *_, scores = map(last, self._parts(*padded(prompts, self._pad, left=True)))
        return scores

    def following(self, tokens: Sequence[int]) -> npt.NDArray[Any]:
        """float32[batch, vocab]."""
        ids = np.asarray(tokens, np.int64)[:, None]
        return last(self._read(ids, np.ones_like(ids)))

    def forced(self, prompt: Sequence[int], answer: Sequence[int]) -> npt.NDArray[Any]:
        """float32[answer, vocab]: what the model gives each token after all before it."""
        ids = np.array([[*prompt, *answer]], np.int64)
        rows = [logits[0] for logits in self._parts(ids, np.ones_like(ids))]
        return np.concatenate(rows)[len(prompt) - 1 : -1]

    def keep(self, places: Sequence[int]) -> None:
        """Forget the other texts."""
        self._mask, self._pasts = self._mask[list(places)], taken(self._pasts, places)

    def _parts(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[Any]]:
        """Scores of new texts from their beginning, float32[batch, part, vocab]: all at once where they fit."""
        self._mask, self._pasts = mask[:, :0], empty_pasts(self._session, len(ids))
        size = max(1, SCORES_AT_ONCE // (4 * len(ids) * vocabulary(self._session)))
        for start in range(0, ids.shape[1], size):
            yield self._read(ids[:, start : start + size], mask[:, start : start + size])

    def _read(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """float32[batch, sequence, vocab]."""
        self._mask = np.concatenate([self._mask, mask], axis=1)
        # The first token of a text has position 0, however many pads stand before it.
        positions = np.maximum(self._mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
        feed = {"input_ids": ids, "attention_mask": self._mask, "position_ids": positions, **self._pasts}
        logits, self._pasts = run(self._session, feed)
        return np.asarray(logits)


class Merged:
    """Encoder and decoder in one graph: its first branch reads the source text, its second goes on from there."""

    def __init__(self, session: Session, pad: int, start: int) -> None:
        """Raises `StageError` for a graph that lacks what decoding needs."""
        needed = {"input_ids", "attention_mask", "decoder_input_ids", BRANCH}
        refuse_other(session, needed, needed)
        self._session, self._pad, self._start = session, pad, start
        self._source: Arrays = {}
        self._pasts: Arrays = {}

    def first(self, prompts: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        """float32[batch, vocab]: what the decoder begins with."""
        ids, mask = padded(prompts, self._pad)
        self._source = {"input_ids": ids, "attention_mask": mask}
        empty = empty_pasts(self._session, len(prompts))
        logits, self._pasts = self._read([[self._start]] * len(prompts), empty, later=False)
        return last(logits)

    def forced(self, prompt: Sequence[int], answer: Sequence[int]) -> npt.NDArray[Any]:
        """float32[answer, vocab]: what the model gives each token after all before it."""
        ids, mask = padded([prompt], self._pad)
        self._source = {"input_ids": ids, "attention_mask": mask}
        logits, _ = self._read([[self._start, *answer]], empty_pasts(self._session, 1), later=False)
        return np.asarray(logits[0, :-1])

    def following(self, tokens: Sequence[int]) -> npt.NDArray[Any]:
        """float32[batch, vocab]."""
        logits, presents = self._read([[token] for token in tokens], self._pasts, later=True)
        # What the encoder said stays as the first step gave it; some graphs pass on nothing in its place.
        self._pasts |= {name: value for name, value in presents.items() if ENCODER not in name}
        return last(logits)

    def keep(self, places: Sequence[int]) -> None:
        """Forget the other texts."""
        self._source, self._pasts = taken(self._source, places), taken(self._pasts, places)

    def _read(self, ids: Sequence[Sequence[int]], pasts: Arrays, *, later: bool) -> tuple[npt.NDArray[Any], Arrays]:
        """float32[batch, sequence, vocab], and what the graph remembers."""
        read = np.array(ids, np.int64)
        return run(self._session, {**self._source, "decoder_input_ids": read, BRANCH: np.array([later]), **pasts})


class Split:
    """Encoder, first step and later steps in graphs of their own."""

    PARTS = ("encoder_model", "decoder_model", "decoder_with_past_model")

    def __init__(self, sessions: Sessions, pad: int, start: int) -> None:
        """Raises `StageError` when a part is missing or does not load."""
        self._encoder, self._opening, self._later = (sessions[part] for part in self.PARTS)
        refuse_other(self._encoder, {"input_ids", "attention_mask"}, {"input_ids"}, "last_hidden_state")
        for session in (self._opening, self._later):
            refuse_other(session, {"input_ids", "encoder_hidden_states", "encoder_attention_mask"}, {"input_ids"})
        self._pad, self._start = pad, start
        self._source: Arrays = {}
        self._pasts: Arrays = {}

    def first(self, prompts: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        """float32[batch, vocab]: what the decoder begins with."""
        self._encode(prompts)
        logits, self._pasts = self._read(self._opening, [[self._start]] * len(prompts), {})
        return last(logits)

    def forced(self, prompt: Sequence[int], answer: Sequence[int]) -> npt.NDArray[Any]:
        """float32[answer, vocab]: what the model gives each token after all before it."""
        self._encode([prompt])
        logits, _ = self._read(self._opening, [[self._start, *answer]], {})
        return np.asarray(logits[0, :-1])

    def following(self, tokens: Sequence[int]) -> npt.NDArray[Any]:
        """float32[batch, vocab]."""
        logits, presents = self._read(self._later, [[token] for token in tokens], self._pasts)
        self._pasts |= {name: value for name, value in presents.items() if ENCODER not in name}
        return last(logits)

    def keep(self, places: Sequence[int]) -> None:
        """Forget the other texts."""
        self._source, self._pasts = taken(self._source, places), taken(self._pasts, places)

    def _encode(self, prompts: Sequence[Sequence[int]]) -> None:
        ids, mask = padded(prompts, self._pad)
        feed = fitting(self._encoder, {"input_ids": ids, "attention_mask": mask})
        hidden = self._encoder.run(feed, ["last_hidden_state"])[0]
        self._source = {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}

    def _read(self, session: Session, ids: Sequence[Sequence[int]], pasts: Arrays) -> tuple[npt.NDArray[Any], Arrays]:
        """float32[batch, sequence, vocab], and what the graph remembers."""
        return run(session, {**self._source, "input_ids": np.array(ids, np.int64), **pasts})


def run(session: Session, feed: Mapping[str, Any]) -> tuple[Any, Arrays]:
    """float32[batch, sequence, vocab], and what the graph remembers under the names by which it is fed back."""
    presents = [name for name in session.outputs if name.startswith(PRESENT)]
    logits, *values = session.run(fitting(session, feed), [LOGITS, *presents])
    return logits, {PAST + name.removeprefix(PRESENT): value for name, value in zip(presents, values, strict=True)}


def last(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """float32[batch, sequence, vocab] -> float32[batch, vocab] of the last token, which keeps none of the others."""
    return np.ascontiguousarray(logits[:, -1])


def fitting(session: Session, feed: Mapping[str, Any]) -> dict[str, Any]:
    """Of `feed` what the graph takes."""
    return {name: value for name, value in feed.items() if name in session.inputs}


def empty_pasts(session: Session, batch: int) -> Arrays:
    """What the graph remembers before the first token: float[batch, heads, 0, width] of each past."""
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    made: Arrays = {}
    for name, (kind, shape) in session.inputs.items():
        if name.startswith(PAST):
            # The first axis is the batch; of the others those with a name are lengths, and nothing has been read.
            sizes = [batch, *(axis if isinstance(axis, int) else 0 for axis in shape[1:])]
            if kind not in kinds or len(sizes) != 4:
                raise StageError(f"the model takes {name} as {kind} of {len(shape)} axes", hint="export it again")
            made[name] = np.zeros(sizes, kinds[kind])
    return made


def taken(arrays: Arrays, places: Sequence[int]) -> Arrays:
    """The rows at `places` of each array."""
    return {name: array[list(places)] for name, array in arrays.items()}


def vocabulary(session: Session) -> int:
    """How many tokens the graph scores. Raises `StageError` when the graph does not say."""
    size = session.outputs[LOGITS][1][-1]
    if not isinstance(size, int):
        raise StageError("the graph does not say how many tokens it scores", hint="fix the last axis of logits")
    return size


def seq2seq(sessions: Sessions, pad: int, start: int) -> Merged | Split:
    """The adapter for the parts an encoder-decoder model has. Raises `StageError` when none fits."""
    if set(Split.PARTS) <= set(sessions):
        return Split(sessions, pad, start)
    return Merged(sessions[WHOLE], pad, start)


def scoring(sessions: Sessions) -> Session:
    """The graph whose `logits` begin an answer."""
    return sessions[WHOLE if WHOLE in sessions else Split.PARTS[1]]


def refuse_other(session: Session, known: set[str], needed: set[str], output: str = LOGITS) -> None:
    """Raise `StageError` for a graph with inputs nobody feeds, without those decoding needs, or without `output`.

    Every past must have its present: a graph that forgets would be fed old keys.
    """
    inputs = {name for name in session.inputs if not name.startswith(PAST)}
    pasts = {name.removeprefix(PAST) for name in session.inputs if name.startswith(PAST)}
    presents = {name.removeprefix(PRESENT) for name in session.outputs if name.startswith(PRESENT)}
    lost = sorted(name for name in pasts - presents if ENCODER not in f".{name}")
    if inputs - known or needed - inputs or output not in session.outputs or lost:
        extra = [*sorted(inputs - known), *(PRESENT + name for name in lost)]
        raise StageError(
            f"the model takes {', '.join(sorted(inputs))} and gives {', '.join(session.outputs)}"[:400],
            hint=f"generation feeds {', '.join(sorted(known))} and reads {output}"
            + (f"; it has no use for, or misses, {', '.join(extra)}" if extra else ""),
        )
