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
LARGEST_PAIR = 128
"""What the magnitudes of two neighbours of one sign may add up to, where a product reads them in pairs.

x86 processors without VNNI multiply with VPMADDUBSW, which adds two products of uint8 and int8 in an int16 and cuts off
what does not fit. 255 times this fits, so that no activation makes them compute something else than all others do.
"""


def to_int8(groups: Floats, *, paired: bool) -> tuple[npt.NDArray[np.int8], Floats]:
    """float32[group, width] -> int8[group, width] in -127..127 and one float16-exact scale per group.

    Symmetric absolute-maximum rounding, as in "Integer Quantization for Deep Learning Inference" (arXiv:2004.09602),
    of numbers or, where a product reads them (`paired`), of the sums that `LARGEST_PAIR` is about.
    """
    scale = int8_scales(groups, paired=paired)
    rounded = np.rint(groups / scale[:, None])
    return np.clip(rounded, -127, 127).astype(np.int8), scale


def int8_scales(groups: Floats, *, paired: bool) -> Floats:
    """float32[group, width] -> float32[group], those of `to_int8`."""
    return _storable((_reach(groups) if paired else np.abs(groups)).max(1) / np.float32(127))


def _reach(groups: Floats) -> Floats:
    """float32[..., width] -> float32[..., pairs]: the larger of what two neighbours have above zero and below it."""
    pairs = np.zeros((*groups.shape[:-1], (groups.shape[-1] + 1) // 2, 2), np.float32)
    pairs.reshape(*groups.shape[:-1], -1)[..., : groups.shape[-1]] = groups
    above, below = np.maximum(pairs, 0), np.maximum(-pairs, 0)
    reach: Floats = np.maximum(above[..., 0] + above[..., 1], below[..., 0] + below[..., 1])
    return reach


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


def to_int4(groups: Floats, block: int, *, paired: bool) -> Int4:
    """float32[group, width] -> 4-bit codes with a 4-bit zero point and a 4-bit step per `block` neighbours.

    `width` must be a multiple of `block`, and `block` even. Of a few nearby steps each block takes the one with the
    least squared error. `paired` ones keep to `LARGEST_PAIR`.
    """
    rows = max(1, PIECE // groups.shape[1])
    pieces = [groups[start : start + rows] for start in range(0, len(groups), rows)]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(partial(_piece_to_int4, block=block, paired=paired), pieces))
    return Int4(*(np.concatenate([getattr(part, name) for part in done]) for name in Int4.__dataclass_fields__))


def _piece_to_int4(groups: Floats, block: int, *, paired: bool) -> Int4:
    # The block's elements come first, so that each step below works on long contiguous rows.
    blocks = np.ascontiguousarray(groups.reshape(len(groups), -1, block).transpose(2, 0, 1))
    low, high = np.minimum(blocks.min(0), 0), np.maximum(blocks.max(0), 0)
    ideal = np.maximum((high - low) / np.float32(15), np.float32(SMALLEST_SCALE))
    zero = np.clip(np.rint(-low / ideal), 0, 15)
    # The widest block decides the group's scale: its largest integer becomes 127, or the largest sum of two does.
    largest = (ideal * np.maximum(zero, 15 - zero)).max(1)
    if paired:
        largest = np.maximum(largest, _reach(groups).max(1))
    scale = _storable(largest / np.float32(127))
    middle = np.floor(ideal / scale[:, None])
    best = _round(blocks, low, scale, np.clip(middle, 1, 15), paired=paired)
    for offset in (1, -1):
        best = _better(best, _round(blocks, low, scale, np.clip(middle + offset, 1, 15), paired=paired))
    codes, zeros, steps, _ = best
    return Int4(np.ascontiguousarray(codes.transpose(1, 2, 0)).reshape(groups.shape), zeros, steps, scale)


def _round(
    blocks: Floats, low: Floats, scale: Floats, step: Floats, *, paired: bool
) -> tuple[Bytes, Bytes, Bytes, Floats]:
    size = step * scale[:, None]
    zero = np.clip(np.rint(-low / size), 0, 15)
    # (code - zero) * step must stay within int8.
    reach = np.floor(np.float32(127) / step)
    lowest, highest = np.maximum(zero - reach, 0) - zero, np.minimum(zero + reach, 15) - zero
    codes = np.empty(blocks.shape, np.uint8)
    error = np.zeros_like(low)
    # Two elements of every block at a time: a sum over an axis would be grouped differently on another processor.
    for number in range(0, len(blocks), 2):
        values = blocks[number : number + 2]
        centred = np.clip(np.rint(values / size), lowest, highest)
        if paired:
            centred = _within(centred, np.floor(np.float32(LARGEST_PAIR) / step))
        for off in np.square(centred * size - values):
            error += off
        codes[number : number + 2] = centred + zero
    return codes, zero.astype(np.uint8), step.astype(np.uint8), error


def _within(pair: Floats, most: Floats) -> Floats:
    """Two whole numbers, [2, ...], nearer to zero where they have one sign and add up to more than `most`."""
    size, sign = np.abs(pair), np.sign(pair)
    over = np.where(sign[0] == sign[1], np.maximum(size[0] + size[1] - most, 0), 0)
    half = np.floor(over / 2)
    # The larger one gives the odd one.
    first = np.where(size[0] >= size[1], over - half, half)
    nearer: Floats = sign * (size - np.stack([first, over - first]))
    return nearer


def _better(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    take = other[3] < one[3]
    return tuple(np.where(take, b, a) for a, b in zip(one, other, strict=True))


def _storable(scale: Floats) -> Floats:
    """The next larger scale that float16 holds exactly; a smaller one would cut off the largest weight."""
    near = np.maximum(scale, np.float32(SMALLEST_SCALE)).astype(np.float16)
    return np.where(near.astype(np.float32) < scale, np.nextafter(near, np.float16(np.inf)), near).astype(np.float32)
