"""Which token comes next: the likeliest, or one drawn by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from modelkit.errors import CheckError
from modelkit.generation.settings import Generation

Scores = npt.NDArray[np.float64]


DAMAGED = "its checks `hygiene` and `nodes` tell what is damaged"


class Sampler:
    """Chooses the tokens of one text. The same seed draws the same tokens from the same scores."""

    def __init__(self, settings: Generation, seed: int | None = None) -> None:
        self._settings = settings
        self._random = np.random.default_rng(seed)

    def __call__(self, logits: npt.NDArray[Any]) -> int:
        """float[vocab] -> an id; of equally likely ones the lowest. Raises `CheckError` for a score that is NaN."""
        if np.isnan(logits).any():
            raise CheckError("the model's scores for the next token are not numbers", hint=DAMAGED)
        if self._settings.temperature == 0:
            return int(logits.argmax())
        scores = narrowed(logits.astype(np.float64), self._settings)
        reached = np.cumsum(softmax(scores))
        # `side="right"` never stops at a token of probability 0; the last sum is 1 but for rounding.
        return int(np.searchsorted(reached, self._random.random() * reached[-1], side="right"))


def narrowed(scores: Scores, settings: Generation) -> Scores:
    """Temperature, then the `top_k` best, then the fewest that together reach `top_p`; the others become -inf.

    Holtzman et al., https://arxiv.org/abs/1904.09751; the order and the treatment of ties (all of them stay at the
    edge of `top_k`, the higher id stays at the edge of `top_p`) are those of transformers' logits warpers.
    """
    scores = scores / settings.temperature
    if settings.top_k is not None and settings.top_k < len(scores):
        edge = np.partition(scores, -settings.top_k)[-settings.top_k]
        scores = np.where(scores < edge, -np.inf, scores)
    if settings.top_p is not None and settings.top_p < 1:
        rising = np.argsort(scores, kind="stable")
        below = np.cumsum(softmax(scores[rising])) <= 1 - settings.top_p
        below[-1] = False
        scores[rising[below]] = -np.inf
    return scores


def softmax(scores: Scores) -> Scores:
    """Probabilities: float64[vocab] that sum to 1."""
    risen = np.exp(scores - scores.max())
    return np.asarray(risen / risen.sum())
