"""Rotary positions (Su et al. 2021, arXiv:2104.09864): pairs of features turned by an angle that grows with position.

A pair is a feature of the first half of a head and its counterpart in the second half, as in GPT-NeoX and Llama.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs import masks
from modelkit.graphs.tape import Tape

Floats = npt.NDArray[np.float32]

KINDS = ("default", "llama3")
STRETCHING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
"""What config.json says about the kind `llama3`."""


class Stretch(Protocol):
    """How an encoder's rotary positions are stretched to longer texts than the model was first trained on."""

    @property
    def factor(self) -> float:
        """How much longer."""

    @property
    def mixed_b(self) -> float | None:
        """Exponent of mixed NTK scaling; None: the fixed one."""


@dataclass(frozen=True)
class Rotation:
    """The angles of one run, computed once for all layers."""

    cosines: ir.Value
    """float32[batch, 1, sequence, head_dim]; the second axis is that of the heads, and may be the third as well."""
    sines: ir.Value
    """The same, negated in the first half."""


def plain_frequencies(theta: float, size: int) -> Floats:
    """Radians per position for each pair of a head of `size` features: float32[size / 2], falling from 1."""
    # Rounded to float32 where the reference framework rounds: at position 8000 the last digit is 0.0005 rad.
    powers = [math.pow(theta, float(np.float32(2 * pair) / np.float32(size))) for pair in range(size // 2)]
    return np.float32(1) / np.array(powers, np.float32)


def slowed_frequencies(theta: float, size: int, stretch: Stretch) -> Floats:
    """As `plain_frequencies`, slowed by NTK-aware scaling, fixed or mixed (https://kexue.fm/archives/9706).

    Fixed, `theta` grows by the factor, and all slow down by factor^(2 / size); mixed, the i-th by exp(a * i^b),
    a = ln(factor) / (size / 2)^b.
    """
    pairs = range(1, size // 2 + 1)
    if stretch.mixed_b is None:
        theta *= stretch.factor
        slower = [stretch.factor ** (2 / size) for _ in pairs]
    else:
        rate = math.log(stretch.factor) / len(pairs) ** stretch.mixed_b
        slower = [math.exp(rate * pair**stretch.mixed_b) for pair in pairs]
    slowed: Floats = np.divide(plain_frequencies(theta, size), np.array(slower, np.float32))
    return slowed


def frequencies(config: Any, size: int) -> Floats:
    """Radians per position for each pair of a head: float32[size / 2].

    Reads `rope_theta` and `rope_scaling` of config.json, or the `rope_parameters` that transformers 5 writes for both.
    Raises `StageError` for a kind that is not built, and for one whose numbers are missing.
    """
    settings: Mapping[str, Any] = config.rope_parameters or config.rope_scaling or {}
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in KINDS:
        raise StageError(
            f"config.json: rotary positions of the kind '{kind}' are not built, only {' and '.join(KINDS)}",
            hint="this architecture does not build such a model",
        )
    if size < 2 or size % 2:
        raise StageError(
            f"config.json: heads of {size} features cannot be turned in pairs",
            hint="correct config.json; fetch the source again",
        )
    theta = _number(settings, "rope_theta") if "rope_theta" in settings else float(config.rope_theta)
    plain = plain_frequencies(theta, size)
    return _stretched(plain, settings) if kind == "llama3" else plain


def _stretched(plain: Floats, settings: Mapping[str, Any]) -> Floats:
    """Llama 3.1's longer context: waves longer than the trained one run `factor` times slower, short ones as before.

    Source: `_compute_llama3_parameters` in transformers' `modeling_rope_utils`.
    """
    factor, low, high, trained = (np.float32(_number(settings, key)) for key in STRETCHING)
    waves = np.float32(trained) * plain / np.float32(2 * math.pi)
    share = np.clip((waves - low) / (high - low), np.float32(0), np.float32(1))
    stretched: Floats = (np.float32(1) - share) * plain / factor + share * plain
    return stretched


def _number(settings: Mapping[str, Any], key: str) -> float:
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise StageError(
            f"config.json: the rotary positions' {key} is {value!r}, expected a number above 0",
            hint="correct config.json; fetch the source again",
        )
    return float(value)


def places(tape: Tape, ids: ir.Value) -> ir.Value:
    """int64[1, sequence]: the positions of int64[batch, sequence] ids, counted from 0 wherever padding is."""
    counted = masks.counted(tape, "positions/counted", tape.ints(0), masks.length(tape, "positions/length", ids))
    return tape.node("positions", "Unsqueeze", counted, tape.ints(0))


def rotation(tape: Tape, positions: ir.Value, per_position: Floats, *, heads_axis: int = 1) -> Rotation:
    """Cosines and sines of int64[batch, sequence] positions, for heads on the axis `heads_axis`."""
    # Stored are frequencies and no table of angles: schemes leave so small a tensor alone. Rounded to float16 they
    # would turn the eight-thousandth token by up to .8 radians too much.
    floats = tape.node("rotary/positions", "Cast", positions, to=ir.DataType.FLOAT)
    floats = tape.node("rotary/places", "Unsqueeze", floats, tape.ints(heads_axis, 3))
    angles = tape.node("rotary/angles", "Mul", floats, tape.weight("rotary/frequencies", per_position))
    cosine, sine = tape.node("rotary/cosine", "Cos", angles), tape.node("rotary/sine", "Sin", angles)
    negated = tape.node("rotary/sine/negated", "Neg", sine)
    return Rotation(
        tape.node("rotary/cosines", "Concat", cosine, cosine, axis=-1),
        tape.node("rotary/sines", "Concat", negated, sine, axis=-1),
    )


def turned(tape: Tape, name: str, x: ir.Value, by: Rotation, size: int) -> ir.Value:
    """float32[batch, heads, sequence, size] (heads where `by` has them) -> the same, turned."""
    first = tape.node(f"{name}/first", "Slice", x, tape.ints(0), tape.ints(size // 2), tape.ints(-1))
    second = tape.node(f"{name}/second", "Slice", x, tape.ints(size // 2), tape.ints(size), tape.ints(-1))
    swapped = tape.node(f"{name}/swapped", "Concat", second, first, axis=-1)
    along = tape.node(f"{name}/along", "Mul", x, by.cosines)
    across = tape.node(f"{name}/across", "Mul", swapped, by.sines)
    return tape.node(f"{name}/turned", "Add", along, across)
