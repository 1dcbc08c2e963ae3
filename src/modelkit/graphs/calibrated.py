"""What a matrix becomes before it is stored in integers, by what its product reads: smoothed, and rounded to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from modelkit.errors import StageError
from modelkit.graphs import gptq, integers
from modelkit.graphs.float64 import Activations, Float64s, significant
from modelkit.graphs.integers import Floats, Int4

How: TypeAlias = Literal["nearest", "gptq"]

FURTHEST = 32
"""Times the middle one: the furthest multiplier. An input that no calibration text excites may still come to life."""
BITS = 8
"""Of a multiplier, which float16 holds; more would depend on the processor that summed the activations."""


class Rounding(Protocol):
    """Weights to integers; `integers` is one such, to nearest."""

    def to_int8(self, groups: Floats, *, paired: bool) -> tuple[npt.NDArray[np.int8], Floats]:
        """As `integers.to_int8`."""

    def to_int4(self, groups: Floats, block: int, *, paired: bool) -> Int4:
        """As `integers.to_int4`."""


NEAREST: Rounding = integers


@dataclass
class Calibration:
    """`smoothing` from 0, nothing moves, to 1, all of the activations' range moves into the weights."""

    smoothing: float = 0.0
    rounding: How = "nearest"
    activations: Activations | None = None
    """Of the graph that is quantized, in which the values below have the same names."""
    _read_last: tuple[str, Float64s] | None = field(default=None, repr=False)
    _rounded_last: tuple[str, Rounding] | None = field(default=None, repr=False)

    def multipliers(self, value: str, weights: Sequence[Floats]) -> Floats | None:
        """float32[inner]: what `value` is multiplied with, the rows of all `weights` [inner, outer] divided by.

        None where nothing moves. That of SmoothQuant (arXiv:2211.10438): the largest magnitude of a weight to the power
        of one part, over that of its activation to the power of the other.
        """
        if not self.smoothing:
            return None
        tiny = np.finfo(np.float32).tiny
        loud = np.maximum(np.abs(self._read(value)).max(0), tiny)
        heavy = np.maximum(np.max([np.abs(each).max(1) for each in weights], axis=0), tiny).astype(np.float64)
        power = (1 - self.smoothing) * np.log2(heavy) - self.smoothing * np.log2(loud)
        furthest = np.log2(FURTHEST)
        return significant(2 ** np.clip(power - np.median(power), -furthest, furthest), BITS).astype(np.float32)

    def rounding_of(self, value: str, multipliers: Floats | None) -> Rounding:
        """That of a matrix that multiplies with `value` times `multipliers`."""
        if self.rounding == "nearest":
            return NEAREST
        if self._rounded_last is None or self._rounded_last[0] != value:
            read = self._read(value)
            self._rounded_last = value, gptq.Rounding.on(read if multipliers is None else read * multipliers)
        return self._rounded_last[1]

    def rounding_of_table(self) -> Rounding:
        """That of a table: which rows a text looks up says nothing about the others, so there is nothing to learn."""
        return NEAREST

    def _read(self, value: str) -> Float64s:
        # Matrices that read one value stand side by side, and the walk does not go back.
        if self._read_last is None or self._read_last[0] != value:
            read = self.activations.of(value) if self.activations else None
            if read is None:
                raise StageError(
                    f"no calibration text reaches '{value}'",
                    hint="add some of the kind that this part of the model takes, or leave smoothing and rounding out",
                )
            self._read_last = value, read
        return self._read_last[1]
