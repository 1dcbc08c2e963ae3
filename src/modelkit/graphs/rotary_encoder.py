"""Rotary positions (Su et al. 2021, arXiv:2104.09864) for encoders: a pair of features turns with its token's place.

A pair is a feature of the first half of a head and its like in the second half, as in GPT-NeoX and Llama.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from modelkit.graphs.tape import Tape


class Stretch(Protocol):
    """How rotary positions are stretched to longer texts than the model was first trained on."""

    @property
    def factor(self) -> float:
        """How much longer."""

    @property
    def mixed_b(self) -> float | None:
        """Exponent of mixed NTK scaling; None: the fixed one."""


@dataclass(frozen=True)
class Angles:
    """Cosine and sine of what each pair turns by, float32[sequence, 1, pairs]."""

    cosine: ir.Value
    sine: ir.Value


def frequencies(head: int, theta: float, stretch: Stretch | None = None) -> npt.NDArray[np.float32]:
    """Radians by which each pair of a head of `head` features turns per token: float32[head / 2], falling from 1.

    With `stretch` they are slowed as by NTK-aware scaling, fixed or mixed (https://kexue.fm/archives/9706): `theta`
    grows by the factor, and all slow down by factor^(2 / head); mixed, the i-th by exp(a * i^b), a = ln(factor) /
    pairs^b.
    """
    pairs = range(1, head // 2 + 1)
    if stretch is None:
        slower = [1.0 for _ in pairs]
    elif stretch.mixed_b is None:
        theta *= stretch.factor
        slower = [stretch.factor ** (2 / head) for _ in pairs]
    else:
        rate = math.log(stretch.factor) / len(pairs) ** stretch.mixed_b
        slower = [math.exp(rate * pair**stretch.mixed_b) for pair in pairs]
    turns = [theta ** (-2 * (pair - 1) / head) / slow for pair, slow in zip(pairs, slower, strict=True)]
    return np.array(turns, np.float32)


def angles(tape: Tape, ids: ir.Value, turns: npt.NDArray[np.float32]) -> Angles:
    """The angles of every position of `ids`, int64[batch, sequence]; the first position is 0, wherever padding is."""
    length = tape.node("positions/length", "Shape", ids, start=1, end=2)
    length = tape.node("positions/length/scalar", "Squeeze", length)
    places = tape.node("positions", "Range", tape.constant(0, np.int64), length, tape.constant(1, np.int64))
    places = tape.node("positions/float", "Cast", places, to=ir.DataType.FLOAT)
    places = tape.node("positions/column", "Unsqueeze", places, tape.ints(1, 2))
    # Stored are frequencies and no table of angles: schemes leave so small a tensor alone. Rounded to float16 they
    # would turn the eight-thousandth token by up to .8 radians too much.
    turned = tape.node("positions/angles", "Mul", places, tape.weight("positions/frequencies", turns))
    return Angles(tape.node("positions/cosine", "Cos", turned), tape.node("positions/sine", "Sin", turned))


def rotated(tape: Tape, x: ir.Value, name: str, heads: int, width: int, by: Angles) -> ir.Value:
    """float32[batch, sequence, width] -> the same with the pairs of each head turned."""
    by_head = tape.node(f"{name}/by_head", "Reshape", x, tape.ints(0, 0, heads, width // heads))
    half = width // heads // 2
    first, second = (
        tape.node(f"{name}/{part}", "Slice", by_head, tape.ints(start), tape.ints(start + half), tape.ints(-1))
        for part, start in (("first", 0), ("second", half))
    )

    def times(part: ir.Value, angle: ir.Value, what: str) -> ir.Value:
        return tape.node(f"{name}/{what}", "Mul", part, angle)

    ahead = tape.node(
        f"{name}/ahead", "Sub", times(first, by.cosine, "first/cosine"), times(second, by.sine, "second/sine")
    )  # fmt: skip
    aside = tape.node(
        f"{name}/aside", "Add", times(second, by.cosine, "second/cosine"), times(first, by.sine, "first/sine")
    )  # fmt: skip
    joined = tape.node(f"{name}/joined", "Concat", ahead, aside, axis=-1)
    return tape.node(f"{name}/rotated", "Reshape", joined, tape.ints(0, 0, width))
