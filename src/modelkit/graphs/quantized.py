"""What a graph quantized per token is made of: activations, matrices and tables as integers with their scales.

A token's scale depends on that token alone, so a sentence gives the same vector alone and among others. Activations
are uint8 and weights int8: the pair onnxruntime has fast kernels for on x86. Dynamic per-token scales are those of
ZeroQuant (arXiv:2206.01861), there with its own kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from modelkit.graphs.calibrated import Rounding
from modelkit.graphs.integers import Floats
from modelkit.graphs.tape import Tape

MIDDLE = 128
"""The zero point of an activation that reaches as far below zero as above."""
FLOORS = {"Gelu": (40, 0.17), "Relu": (0, 0.0)}
"""Of operators that hardly fall below zero: the activation's zero point, and how far below zero they reach.

Gelu's 40 leaves 215 levels above zero. Less would suit loud tokens better, but quiet ones pay for it: a step is never
finer than a fortieth of the floor. Between 16 and 40 MiniLM's mean cosine does not move by .0001.
"""
SMALLEST = 1e-12
"""Smallest peak of a token: keeps an all-zero one from dividing by zero."""
FINER = 1 / 254
"""The second 8 bits, in units of the first: rounding leaves half a unit over, which 127 steps of this reach."""


@dataclass(frozen=True)
class Matrix:
    """A weight matrix as integers."""

    integers: ir.Value
    """int8[inner, outer], stored or unpacked."""
    scales: ir.Value
    """float32[outer]."""


@dataclass(frozen=True)
class Activation:
    """One activation, quantized once for all the products that read it."""

    units: ir.Value
    """float32[..., inner]: the activation with its token's peak at `levels`."""
    peak: ir.Value
    """float32[..., 1]: what `levels` stands for. A token's largest magnitude; after an operator of `FLOORS` its largest
    value, or more, where the floor would otherwise fall below code 0."""
    codes: ir.Value
    """uint8[..., inner]: `units` rounded, plus the zero point."""
    zero_point: int

    @property
    def levels(self) -> int:
        """Codes above zero."""
        return 255 - self.zero_point


Lookup = Callable[[str, ir.Value], ir.Value]
"""`take(name, stored)`: repeats the graph's own row lookup on another stored table of as many rows."""


class Table(Protocol):
    """A stored float32[rows, width] as integers, however often and wherever it is read."""

    def rows(self, tape: Tape, take: Lookup, indices: ir.Value | None) -> ir.Value:
        """The rows looked up, float32[..., width]; `indices` are those of a Gather."""

    def turned(self, tape: Tape) -> Matrix:
        """The same integers as a matrix, [width, rows], for a head tied to the table."""


WriteMatrix = Callable[[Tape, str, Floats, Rounding], Matrix]
"""`write(tape, name, float32[inner, outer], rounding)`"""


class WriteTable(Protocol):
    """Stores a table."""

    def __call__(self, tape: Tape, name: str, array: Floats, rounding: Rounding, *, multiplied: bool) -> Table:
        """float32[rows, width]; `multiplied` when a head is tied to it."""


def rest(tape: Tape, name: str, active: Activation) -> ir.Value:
    """What rounding left over, as codes in steps of `FINER`: together with the first codes about 16 bits."""
    left = tape.node(f"{name}/rest", "Sub", active.units, tape.node(f"{name}/rounded", "Round", active.units))
    step, zero = tape.constant(FINER, np.float32), tape.constant(MIDDLE, np.uint8)
    return tape.node(f"{name}/rest/codes", "QuantizeLinear", left, step, zero)


def is_lopsided(x: ir.Value) -> bool:
    """Whether an operator of `FLOORS` made it. Divided by something, it would no longer be known to be."""
    producer = x.producer()
    return producer is not None and producer.op_type in FLOORS


def activation(tape: Tape, x: ir.Value) -> Activation:
    """Quantize float32[..., inner] with one scale per token, lopsided after an operator of `FLOORS`."""
    name = x.name
    if is_lopsided(x):
        reach, (zero_point, floor) = x, FLOORS[x.producer().op_type]  # type: ignore[union-attr]
    else:
        reach, zero_point, floor = tape.node(f"{name}/magnitude", "Abs", x), MIDDLE, 0.0
    levels = 255 - zero_point
    # Small enough a peak would push the floor below code 0.
    smallest = max(SMALLEST, floor * levels / max(zero_point, 1))
    peak = tape.node(f"{name}/peak", "ReduceMax", reach, tape.ints(-1), keepdims=1)
    peak = tape.node(f"{name}/peak/floored", "Max", peak, tape.constant(smallest, np.float32))
    factor = tape.node(f"{name}/factor", "Div", tape.constant(levels, np.float32), peak)
    units = tape.node(f"{name}/units", "Mul", x, factor)
    one, zero = tape.constant(1, np.float32), tape.constant(zero_point, np.uint8)
    return Activation(units, peak, tape.node(f"{name}/codes", "QuantizeLinear", units, one, zero), zero_point)


def matrix_int8(tape: Tape, name: str, array: Floats, rounding: Rounding) -> Matrix:
    """One scale per column."""
    integers, scales = rounding.to_int8(array.T, paired=True)
    return Matrix(
        tape.weight(f"{name}/int8", integers.T),
        tape.weight(f"{name}/scales", scales),
    )


@dataclass(frozen=True)
class TableInt8:
    """One scale per row, so that a rare token's small vector keeps its precision beside a frequent one's large."""

    name: str
    integers: ir.Value
    """int8[rows, width]."""
    scales: ir.Value
    """float16[rows, 1]."""

    def rows(self, tape: Tape, take: Lookup, indices: ir.Value | None = None) -> ir.Value:  # noqa: ARG002
        """The looked-up integers times their scales, float32[..., width]."""
        rows = tape.node(f"{self.name}/float", "Cast", take("int8", self.integers), to=ir.DataType.FLOAT)
        scale = tape.node(f"{self.name}/scales/float", "Cast", take("scales", self.scales), to=ir.DataType.FLOAT)
        return tape.node(f"{self.name}/rows", "Mul", rows, scale)

    def turned(self, tape: Tape) -> Matrix:
        """int8[width, rows]: a row's scale is a column's."""
        return turned_matrix(tape, self.name, self.integers, self.scales)


def turned_matrix(tape: Tape, name: str, integers: ir.Value, scales: ir.Value) -> Matrix:
    """int8[rows, width] and float16[rows, 1] -> a matrix [width, rows]; onnxruntime folds it when it loads."""
    turned = tape.node(f"{name}/turned", "Transpose", integers, perm=[1, 0])
    flat = tape.node(f"{name}/turned/scales", "Reshape", scales, tape.ints(-1))
    return Matrix(turned, tape.node(f"{name}/turned/scales/float", "Cast", flat, to=ir.DataType.FLOAT))


def table_int8(tape: Tape, name: str, array: Floats, rounding: Rounding, *, multiplied: bool) -> TableInt8:
    """Store `array` with one scale per row."""
    integers, scales = rounding.to_int8(array, paired=multiplied)
    stored = tape.weight(f"{name}/int8", integers)
    return TableInt8(name, stored, tape.weight(f"{name}/scales", scales.astype(np.float16)[:, None]))
