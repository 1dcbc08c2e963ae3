"""Integers without a number in them: what a model will take on the disk, before any of its weights is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelkit.graphs.calibrated import Calibration, Rounding
from modelkit.graphs.integers import Floats, Int4


class _Zeros:
    def to_int8(self, groups: Floats, *, paired: bool) -> tuple[npt.NDArray[np.int8], Floats]:  # noqa: ARG002
        return np.zeros(groups.shape, np.int8), np.zeros(len(groups), np.float32)

    def to_int4(self, groups: Floats, block: int, *, paired: bool) -> Int4:  # noqa: ARG002
        blocks = np.zeros((len(groups), groups.shape[1] // block), np.uint8)
        return Int4(np.zeros(groups.shape, np.uint8), blocks, blocks, np.zeros(len(groups), np.float32))


@dataclass
class Blank(Calibration):
    """Needs no activations, whatever is smoothed."""

    def multipliers(self, value: str, weights: Sequence[Floats]) -> Floats | None:  # noqa: ARG002
        """Ones, where something would be moved."""
        return np.ones(len(weights[0]), np.float32) if self.smoothing else None

    def rounding_of(self, value: str, multipliers: Floats | None) -> Rounding:  # noqa: ARG002
        """To zero."""
        return _Zeros()

    def rounding_of_table(self) -> Rounding:
        """To zero."""
        return _Zeros()
