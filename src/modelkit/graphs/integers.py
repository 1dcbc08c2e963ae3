"""Rounding weights to integers: elementwise float32 arithmetic, summed in a fixed order, so the same bytes anywhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

PIECE = 1 << 20
"""Elements rounded at a time: bounds memory, and two arrays of this size still fit a core's cache."""
LARGEST = 4_000_000
"""Weights up to here have scales that float16 holds (its largest number is 65504)."""
SMALLEST_SCALE = float(np.finfo(np.float16).smallest_subnormal)


def to_int8(groups: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """float32[group, width] -> int8[group, width] in -127..127 and one float16-exact scale per group.

    Symmetric absolute-maximum rounding, as in "Integer Quantization for Deep Learning Inference" (arXiv:2004.09602).
    """
    scale = _storable(np.abs(groups).max(1) / np.float32(127))
    rounded = np.rint(groups / scale[:, None])
    return np.clip(rounded, -127, 127).astype(np.int8), scale


@dataclass(frozen=True)
class Int4:
    """Groups of blocks: a weight is `(code - zero) * step * scale`; `(code - zero) * step` always fits int8."""

    codes: Bytes
    """uint8[group, width], 0..15."""
    zeros: Bytes
    """uint8[group, block], 0..15."""
    steps: Bytes
    """uint8[group, block], 1..15."""
    scales: Floats
    """float32[group], each exact in float16."""

    def integers(self) -> npt.NDArray[np.int8]:
        """What the graph unpacks to at load time: int8[group, width]."""
        shape = (*self.zeros.shape, -1)
        centred = self.codes.reshape(shape).astype(np.int8) - self.zeros[..., None].astype(np.int8)
        return (centred * self.steps[..., None].astype(np.int8)).reshape(self.codes.shape)


def to_int4(groups: Floats, block: int) -> Int4:
    """float32[group, width] -> 4-bit codes with a 4-bit zero point and a 4-bit step per `block` neighbours.

    `width` must be a multiple of `block`. Of a few nearby steps each block takes the one with the least squared error.
    """
    rows = max(1, PIECE // groups.shape[1])
    pieces = [groups[start : start + rows] for start in range(0, len(groups), rows)]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(partial(_piece_to_int4, block=block), pieces))
    return Int4(*(np.concatenate([getattr(part, name) for part in done]) for name in Int4.__dataclass_fields__))


def _piece_to_int4(groups: Floats, block: int) -> Int4:
    # The block's elements come first, so that each step below works on long contiguous rows.
    blocks = np.ascontiguousarray(groups.reshape(len(groups), -1, block).transpose(2, 0, 1))
    low, high = np.minimum(blocks.min(0), 0), np.maximum(blocks.max(0), 0)
    ideal = np.maximum((high - low) / np.float32(15), np.float32(SMALLEST_SCALE))
    zero = np.clip(np.rint(-low / ideal), 0, 15)
    # The widest block decides the group's scale: its largest integer becomes 127.
    scale = _storable((ideal * np.maximum(zero, 15 - zero)).max(1) / np.float32(127))
    middle = np.floor(ideal / scale[:, None])
    best = _round(blocks, low, scale, np.clip(middle, 1, 15))
    for offset in (1, -1):
        best = _better(best, _round(blocks, low, scale, np.clip(middle + offset, 1, 15)))
    codes, zeros, steps, _ = best
    return Int4(np.ascontiguousarray(codes.transpose(1, 2, 0)).reshape(groups.shape), zeros, steps, scale)


def _round(blocks: Floats, low: Floats, scale: Floats, step: Floats) -> tuple[Bytes, Bytes, Bytes, Floats]:
    size = step * scale[:, None]
    zero = np.clip(np.rint(-low / size), 0, 15)
    # (code - zero) * step must stay within int8.
    reach = np.floor(np.float32(127) / step)
    lowest, highest = np.maximum(zero - reach, 0), np.minimum(zero + reach, 15)
    codes = np.empty(blocks.shape, np.uint8)
    error = np.zeros_like(low)
    # One element of every block at a time: a sum over an axis would be grouped differently on another processor.
    for number, values in enumerate(blocks):
        code = np.clip(np.rint(values / size) + zero, lowest, highest)
        error += np.square((code - zero) * size - values)
        codes[number] = code
    return codes, zero.astype(np.uint8), step.astype(np.uint8), error


def _better(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    take = other[3] < one[3]
    return tuple(np.where(take, b, a) for a, b in zip(one, other, strict=True))


def _storable(scale: Floats) -> Floats:
    """The nearest scale that float16 holds exactly and that is not zero."""
    return np.maximum(scale, np.float32(SMALLEST_SCALE)).astype(np.float16).astype(np.float32)
