"""Rounding a weight so that those not yet rounded make up for it on what the product reads: GPTQ (arXiv:2210.17323).

The product with activations X moves by X times the weights' error. Of its square's sum only the second moments XᵀX are
needed. Inputs are rounded one after the other, and the error of each is taken off those that follow, as far as the
moments say that they go together. Scales, and the blocks of 4-bit weights, are those of rounding to nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from modelkit.graphs import integers
from modelkit.graphs.float64 import Float64s, significant
from modelkit.graphs.integers import LARGEST_PAIR, Floats, Int4

DAMPING = 0.1
"""Added to the diagonal, as a share of its mean: what the calibration texts do not show may still come."""
BITS = 12
"""Of a moment that count. The last digits of a float64 sum depend on the processor, the rounded weights must not."""
TOGETHER = 64
"""Inputs after which the rest is corrected at once, by a matrix product."""


@dataclass(frozen=True)
class Rounding:
    """What one matrix is rounded with; the counterpart of the functions of `integers`, for weights [outer, inner]."""

    order: npt.NDArray[np.intp]
    """The inner axis, the most active first: what comes last has nobody left to make up for it."""
    passed_on: Float64s
    """float64[inner, inner], upper triangular and in that order: the share of an error that each later input takes."""

    @classmethod
    def on(cls, read: Float64s) -> Rounding:
        """For a matrix that multiplies the rows of `read`, float64[tokens, inner]."""
        moments = read.T @ read
        energy = np.diag(moments).copy()
        moments[np.diag_indices_from(moments)] += DAMPING * energy.mean() + np.finfo(np.float64).tiny
        reach = np.sqrt(np.diag(moments))
        alike = np.rint(moments / np.outer(reach, reach) * 2**BITS) / 2**BITS
        reach = significant(reach, BITS)
        order = np.argsort(-reach, kind="stable")
        alike, reach = alike[np.ix_(order, order)], reach[order]
        upper = np.linalg.cholesky(np.linalg.inv(alike)).T / reach
        return cls(order, upper / np.diag(upper)[:, None])

    def to_int8(self, groups: Floats, *, paired: bool) -> tuple[npt.NDArray[np.int8], Floats]:
        """As `integers.to_int8`."""
        scale = integers.int8_scales(groups, paired=paired)
        size, reach, most = np.broadcast_arrays(groups.T, scale, np.float32(127), np.float32(LARGEST_PAIR))[1:]
        return self._rounded(groups.T, _Grid(size, -reach, reach, most if paired else 2 * reach)).T.astype(
            np.int8
        ), scale

    def to_int4(self, groups: Floats, block: int, *, paired: bool) -> Int4:
        """As `integers.to_int4`, whose blocks it keeps."""
        nearest = integers.to_int4(groups, block, paired=paired)
        zeros, steps = (np.repeat(each.T.astype(np.float32), block, axis=0) for each in (nearest.zeros, nearest.steps))
        reach = np.floor(127 / steps)
        most = np.floor(LARGEST_PAIR / steps) if paired else 2 * reach
        grid = _Grid(steps * nearest.scales, np.maximum(-reach, -zeros), np.minimum(reach, 15 - zeros), most)
        centred = self._rounded(groups.T, grid)
        return replace(nearest, codes=np.ascontiguousarray((centred + zeros).T.astype(np.uint8)))

    def _rounded(self, rows: Floats, grid: _Grid) -> Floats:
        """Whole numbers for float32[inner, outer]."""
        left = rows[self.order].astype(np.float64)
        codes = np.zeros(rows.shape, np.float32)
        for start in range(0, len(left), TOGETHER):
            end = min(start + TOGETHER, len(left))
            errors = np.empty((end - start, rows.shape[1]))
            for number in range(start, end):
                place = self.order[number]
                codes[place] = grid.nearest(left[number], codes, place)
                errors[number - start] = left[number] - codes[place] * grid.size[place]
                left[number + 1 : end] -= self.passed_on[number, number + 1 : end, None] * errors[number - start]
            left[end:] -= self.passed_on[start:end, end:].T @ errors
        return codes


@dataclass(frozen=True)
class _Grid:
    """What each weight may become, float32[inner, outer]: whole numbers of `size` from `low` to `high`."""

    size: Floats
    low: Floats
    high: Floats
    most: Floats
    """What the magnitudes of two neighbours of one sign may add up to."""

    def nearest(self, row: Float64s, codes: Floats, place: int) -> Float64s:
        """The codes of one row, given those of its neighbour; where they are still to come, they are zero."""
        code: Float64s = np.clip(np.rint(row / self.size[place]), self.low[place], self.high[place])
        if (other := place ^ 1) >= len(codes):
            return code
        room = np.where(codes[other] * code > 0, self.most[place] - np.abs(codes[other]), np.inf)
        nearer: Float64s = np.clip(code, -room, room)
        return nearer
