"""What generators are asked and how their answers are timed, the same for modelkit and for torch in its environment."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

PROMPTS = {64: 48, 256: 48}
"""Tokens of the text -> tokens of the answer."""
ANSWERS = 3


def measured(answer: Callable[[list[int], int], list[int]], vocabulary: int) -> dict[str, Any]:
    """Seconds per answer to a text of each length, the reading of the text included, and the answers."""
    seconds, answers = {}, {}
    for length, count in PROMPTS.items():
        ids = np.random.default_rng(length).integers(5, vocabulary, length).tolist()
        answers[str(length)] = answer(ids, count)  # warms up, too
        seconds[str(length)] = median(_seconds(answer, ids, count) for _ in range(ANSWERS))
    return {"seconds": seconds, "answers": answers}


def _seconds(answer: Callable[[list[int], int], list[int]], ids: list[int], count: int) -> float:
    start = perf_counter()
    answer(ids, count)
    return perf_counter() - start
