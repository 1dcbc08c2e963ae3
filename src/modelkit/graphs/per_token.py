"""Integer matrix products with one activation scale per token, in standard operators.

A token's scale depends on that token alone, so a sentence gives the same vector alone and among others. Activations
are uint8 and weights int8: the pair onnxruntime has fast kernels for on x86. Dynamic per-token scales are those of
ZeroQuant (arXiv:2206.01861), there with its own kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs.files import TensorFile
from modelkit.graphs.integers import LARGEST, Floats, to_int8
from modelkit.graphs.tape import Tape

GELU_FLOOR = 0.17
"""Gelu never falls below -0.16998: shifted up by this, its output can use all 256 levels from zero."""
SMALLEST = 1e-12
"""Smallest largest activation of a token: keeps the scale of an all-zero token from dividing by zero."""
OLDEST_OPSET = 18
"""First with BitwiseAnd, and with ReduceMax over axes that are an input."""
SMALL_TABLE = 64 * 1024
"""Embedding tables below this many bytes (token types) stay as they are: nothing to win."""


@dataclass(frozen=True)
class Matrix:
    """A weight matrix as integers."""

    integers: ir.Value
    """int8[inner, outer], stored or unpacked."""
    scales: ir.Value
    """float32[outer]."""
    column_sums: Floats
    """float32[outer]: the sum of each column's dequantized weights."""


@dataclass(frozen=True)
class Activation:
    """One activation, quantized once for all the products that read it."""

    rows: ir.Value
    """float32[token, inner], shifted up by `floor`."""
    scale: ir.Value
    """float32[token]."""
    codes: ir.Value
    """uint8[token, inner]."""
    leading: ir.Value
    """The shape to give back, without its last axis."""
    zero_point: int
    floor: float


@dataclass(frozen=True)
class Precision:
    """Which stored matrices get more than the rest, as patterns of their names (`*.value.weight`)."""

    activations_16bit: tuple[str, ...] = ()
    """Their activation is quantized twice, the second time what the first left over: one more product each."""
    weights_8bit: tuple[str, ...] = ()
    """Stored in 8 bits whatever the rest is."""


WriteMatrix = Callable[[Tape, str, Floats], Matrix]
"""`write(tape, name, float32[inner, outer])`"""
Lookup = Callable[[str, ir.Value], ir.Value]
"""`take(name, stored)`: repeats the graph's own row lookup on another stored table of as many rows."""
WriteTable = Callable[[Tape, str, Floats, Lookup, ir.Value | None], ir.Value]
"""`write(tape, name, float32[rows, width], take, indices)`: the rows looked up, float32[..., width]"""


def quantize(
    model: ir.Model, tensors: TensorFile, precision: Precision, write_matrix: WriteMatrix, write_table: WriteTable
) -> None:
    """Replace in `model` every product with a stored float32 matrix, and every lookup in a stored table.

    Raises `StageError` when a pattern of `precision` names no stored matrix, or the model's opset is too old.
    """
    if (opset := model.graph.opset_imports.get("", 0)) < OLDEST_OPSET:
        raise StageError(
            f"the model has opset {opset}, integer products per token need {OLDEST_OPSET}",
            hint="export it with a newer opset, or use the scheme int8-dynamic",
        )
    names = [stored.name for node in model.graph if (stored := _matrix_of(node)) is not None]
    _refuse_idle_patterns(precision, [name for name in names if name])
    rewriter = _Rewriter(Tape(tensors, "per_token/constant"), precision, write_matrix, write_table)
    for node in list(model.graph):
        start = len(rewriter.tape.nodes)
        if (value := rewriter.replacement(node)) is not None:
            _replace(model.graph, node, rewriter.tape.nodes[start:], value)
    for value in rewriter.tape.initializers:
        model.graph.register_initializer(value)
    for value in [v for v in model.graph.initializers.values() if not v.uses()]:
        del model.graph.initializers[value.name]  # type: ignore[arg-type]


def _refuse_idle_patterns(precision: Precision, names: list[str]) -> None:
    for pattern in (*precision.activations_16bit, *precision.weights_8bit):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise StageError(
                f"the pattern '{pattern}' of the scheme names no weight matrix",
                hint=f"matrices are called like {', '.join(names[:2])}",
            )


def _matrix_of(node: ir.Node) -> ir.Value | None:
    """The stored matrix of a product."""
    return node.inputs[1] if node.op_type == "MatMul" and _is_stored(node.inputs[1]) else None


def _table_of(node: ir.Node) -> ir.Value | None:
    """The stored table of a lookup along its rows."""
    rows = node.op_type in ("Gather", "Slice") and "axis" not in node.attributes
    table = node.inputs[0]
    large = rows and table is not None and _is_stored(table) and table.const_value.nbytes >= SMALL_TABLE  # type: ignore[union-attr]
    return table if large else None


def _is_stored(value: ir.Value | None) -> bool:
    return (
        value is not None
        and value.const_value is not None
        and value.dtype == ir.DataType.FLOAT
        and len(value.const_value.shape) == 2
    )


def _replace(graph: ir.Graph, old: ir.Node, new: Sequence[ir.Node], value: ir.Value) -> None:
    value.type, value.shape = old.outputs[0].type, old.outputs[0].shape
    ir.convenience.replace_nodes_and_values(graph, old, [old], new, old.outputs, [value])


@dataclass(frozen=True)
class _Rewriter:
    tape: Tape
    precision: Precision
    write_matrix: WriteMatrix
    write_table: WriteTable
    activations: dict[ir.Value, Activation] = field(default_factory=dict)
    matrices: dict[str, Matrix] = field(default_factory=dict)
    """By name: layers may share one."""
    shifts: dict[str, ir.Value] = field(default_factory=dict)

    def replacement(self, node: ir.Node) -> ir.Value | None:
        if (stored := _matrix_of(node)) is not None:
            return self._product(node, stored)
        if (table := _table_of(node)) is not None:
            return self._lookup(node, table)
        return None

    def _product(self, node: ir.Node, stored: ir.Value) -> ir.Value:
        tape, x, name = self.tape, node.inputs[0], str(node.outputs[0].name)
        assert x is not None  # a product has two operands
        array, weight = stored.const_value.numpy(), str(stored.name)  # type: ignore[union-attr]
        if weight not in self.matrices:
            _refuse_unstorable(weight, array)
            write = matrix_int8 if _named(weight, self.precision.weights_8bit) else self.write_matrix
            self.matrices[weight] = write(tape, weight, array)
        matrix = self.matrices[weight]
        if x not in self.activations:
            self.activations[x] = _activation(tape, x, array.shape[0])
        active = self.activations[x]
        sums = _sums(tape, f"{name}/sums", active.codes, matrix, active.zero_point)
        if _named(weight, self.precision.activations_16bit):
            sums = tape.node(f"{name}/sums/finer", "Add", sums, _rest(tape, name, active, matrix))
        column = tape.node(f"{name}/token_scales", "Unsqueeze", active.scale, tape.ints(1))
        sums = tape.node(f"{name}/by_token", "Mul", sums, column)
        sums = tape.node(f"{name}/by_column", "Mul", sums, matrix.scales)
        if active.floor:
            # The activation was shifted up by a constant: take its share out again.
            if weight not in self.shifts:
                share = -np.float32(active.floor) * matrix.column_sums
                self.shifts[weight] = tape.weight(f"{weight}/shift", share)
            sums = tape.node(f"{name}/unshifted", "Add", sums, self.shifts[weight])
        shape = tape.node(f"{name}/shape", "Concat", active.leading, tape.ints(array.shape[1]), axis=0)
        return tape.node(f"{name}/restored", "Reshape", sums, shape)

    def _lookup(self, node: ir.Node, table: ir.Value) -> ir.Value:
        rest, name = node.inputs[1:], node.outputs[0].name

        def take(part: str, stored: ir.Value) -> ir.Value:
            return self.tape.node(f"{name}/{part}", node.op_type, stored, *rest)

        array = table.const_value.numpy()  # type: ignore[union-attr]
        _refuse_unstorable(str(table.name), array)
        indices = rest[0] if node.op_type == "Gather" else None
        return self.write_table(self.tape, str(table.name), array, take, indices)


def _refuse_unstorable(name: str, array: Floats) -> None:
    """A NaN or a huge value would become a scale that is none, and silently spoil its whole column."""
    if not max(array.max(), -array.min()) <= LARGEST:
        raise StageError(
            f"tensor '{name}' holds NaN or values beyond {LARGEST:,}, which no float16 scale reaches",
            hint="are the weights damaged? the scheme fp32 takes them as they are",
        )


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _sums(tape: Tape, name: str, codes: ir.Value, matrix: Matrix, zero_point: int) -> ir.Value:
    zero = [tape.constant(zero_point, np.uint8)] if zero_point else []
    return tape.node(
        f"{name}/float", "Cast", tape.node(name, "MatMulInteger", codes, matrix.integers, *zero), to=ir.DataType.FLOAT
    )


def _rest(tape: Tape, name: str, active: Activation, matrix: Matrix) -> ir.Value:
    """The product with what rounding left over, at 1/254 of the scale: together about 16 bits."""
    scale = tape.node(f"{name}/rest/scale", "Mul", active.scale, tape.constant(1 / 254, np.float32))
    coarse = tape.node(
        f"{name}/coarse", "DequantizeLinear", active.codes, active.scale,
        *_zeros(tape, f"{name}/coarse", active.scale, active.zero_point), axis=0,
    )  # fmt: skip
    left = tape.node(f"{name}/rest", "Sub", active.rows, coarse)
    zeros = _zeros(tape, f"{name}/rest", scale, 128)
    codes = tape.node(f"{name}/rest/codes", "QuantizeLinear", left, scale, *zeros, axis=0)
    sums = _sums(tape, f"{name}/rest/sums", codes, matrix, 128)
    return tape.node(f"{name}/rest/scaled", "Mul", sums, tape.constant(1 / 254, np.float32))


def _activation(tape: Tape, x: ir.Value, width: int) -> Activation:
    name, floor = x.name, _floor(x)
    leading = tape.node(f"{name}/leading", "Shape", x, end=-1)
    rows = tape.node(f"{name}/rows", "Reshape", x, tape.ints(-1, width))
    if floor is None:
        size, levels, zero_point = tape.node(f"{name}/size", "Abs", rows), 127, 128
    else:
        if floor:
            rows = tape.node(f"{name}/shifted", "Add", rows, tape.constant(floor, np.float32))
        size, levels, zero_point = rows, 255, 0
    peak = tape.node(f"{name}/peak", "ReduceMax", size, tape.ints(-1), keepdims=0)
    peak = tape.node(f"{name}/peak/floored", "Max", peak, tape.constant(SMALLEST, np.float32))
    scale = tape.node(f"{name}/scale", "Mul", peak, tape.constant(1 / levels, np.float32))
    zeros = _zeros(tape, str(name), scale, zero_point)
    codes = tape.node(f"{name}/codes", "QuantizeLinear", rows, scale, *zeros, axis=0)
    return Activation(rows, scale, codes, leading, zero_point, floor or 0.0)


def _floor(x: ir.Value) -> float | None:
    """How far below zero `x` can reach, where its operator bounds that; None where it does not."""
    producer = x.producer()
    return {"Gelu": GELU_FLOOR, "Relu": 0.0}.get(producer.op_type) if producer else None


def _zeros(tape: Tape, name: str, scale: ir.Value, zero_point: int) -> list[ir.Value]:
    """One uint8 zero point per token, as QuantizeLinear wants it; its default is 0."""
    if not zero_point:
        return []
    fill = ir.tensor(np.array([zero_point], np.uint8))
    shape = tape.node(f"{name}/tokens", "Shape", scale)
    return [tape.node(f"{name}/zero_point", "ConstantOfShape", shape, value=fill)]


def matrix_int8(tape: Tape, name: str, array: Floats) -> Matrix:
    """One scale per column."""
    integers, scales = to_int8(array.T)
    return Matrix(
        tape.weight(f"{name}/int8", integers.T),
        tape.weight(f"{name}/scales", scales),
        column_sums(integers, scales),
    )


def table_int8(tape: Tape, name: str, array: Floats, take: Lookup, indices: ir.Value | None = None) -> ir.Value:  # noqa: ARG001
    """One scale per row, so that a rare token's small vector keeps its precision beside a frequent one's large."""
    integers, scales = to_int8(array)
    rows = tape.node(f"{name}/float", "Cast", take("int8", tape.weight(f"{name}/int8", integers)), to=ir.DataType.FLOAT)
    scale = take("scales", tape.weight(f"{name}/scales", scales.astype(np.float16)[:, None]))
    scale = tape.node(f"{name}/scales/float", "Cast", scale, to=ir.DataType.FLOAT)
    return tape.node(f"{name}/rows", "Mul", rows, scale)


def column_sums(integers: npt.NDArray[np.int8], scales: Floats) -> Floats:
    """int8[column, inner], float32[column] -> float32[column]; the integer sum is exact, whatever its order."""
    exact: npt.NDArray[np.int32] = np.add.reduce(integers, axis=1, dtype=np.int32)
    return exact.astype(np.float32) * scales
