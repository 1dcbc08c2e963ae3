"""Scores as the probabilities they stand for, and how far two such distributions are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def log_softmax(scores: npt.NDArray[Any]) -> Numbers:
    """float[..., vocabulary] -> the logarithms of their probabilities."""
    raised = scores.astype(np.float64)
    raised -= raised.max(-1, keepdims=True)
    raised -= np.log(np.exp(raised).sum(-1, keepdims=True))
    return raised


def divergence(log_p: Numbers, log_q: Numbers) -> Numbers:
    """Kullback-Leibler divergence of Q from P in nats, over the last axis: 0 where they are one, else positive
    (Kullback and Leibler 1951, doi:10.1214/aoms/1177729694)."""
    # A sum of rounded terms may be below 0 by a hair.
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(-1)).clip(0)
