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
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs.files import TensorFile
from modelkit.graphs.integers import LARGEST, Floats, to_int8
from modelkit.graphs.tape import Tape

FLOORS = {"Gelu": (24, 0.17), "Relu": (0, 0.0)}
"""Of operators that hardly fall below zero: the activation's zero point, and how far below zero they reach.

Gelu's 24 leaves 231 levels above zero; between 16 and 40 MiniLM's mean cosine does not move by .0001.
"""
SMALLEST = 1e-12
"""Smallest peak of a token: keeps an all-zero one from dividing by zero."""
FINER = 1 / 254
"""The second 8 bits, in units of the first: rounding leaves half a unit over, which 127 steps of this reach."""
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


@dataclass(frozen=True)
class Activation:
    """One activation, quantized once for all the products that read it."""

    units: ir.Value
    """float32[..., inner]: the activation with its token's peak at `levels`."""
    peak: ir.Value
    """float32[..., 1]: the largest magnitude of each token."""
    codes: ir.Value
    """uint8[..., inner]: `units` rounded, plus the zero point."""
    zero_point: int

    @property
    def levels(self) -> int:
        """Codes above zero."""
        return 255 - self.zero_point


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
    tape, first_input = Tape(tensors, "per_token/constant"), model.graph.inputs[0]
    rewriter = _Rewriter(tape, first_input, precision, write_matrix, write_table)
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
    first_input: ir.Value
    precision: Precision
    write_matrix: WriteMatrix
    write_table: WriteTable
    activations: dict[ir.Value, Activation] = field(default_factory=dict)
    matrices: dict[str, Matrix] = field(default_factory=dict)
    """By name: layers may share one."""
    steps: dict[float, ir.Value] = field(default_factory=dict)

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
            self.activations[x] = _activation(tape, x)
        active = self.activations[x]
        sums = self._sums(f"{name}/sums", active.codes, active.zero_point, matrix, 1 / active.levels)
        if _named(weight, self.precision.activations_16bit):
            rest = _rest(tape, name, active)
            rest = self._sums(f"{name}/rest/sums", rest, 128, matrix, FINER / active.levels)
            sums = tape.node(f"{name}/finer", "Add", sums, rest)
        return tape.node(f"{name}/scaled", "Mul", sums, active.peak)

    def _sums(self, name: str, codes: ir.Value, zero_point: int, matrix: Matrix, step: float) -> ir.Value:
        """The product for a token whose peak is 1.

        onnxruntime has one kernel (MatMulIntegerToFloat) for product, cast and scaling, and takes it where the scale is
        itself a product.
        """
        tape = self.tape
        zero = [tape.constant(zero_point, np.uint8)] if zero_point else []
        product = tape.node(name, "MatMulInteger", codes, matrix.integers, *zero)
        product = tape.node(f"{name}/float", "Cast", product, to=ir.DataType.FLOAT)
        scales = tape.node(f"{name}/scales", "Mul", self._step(step), matrix.scales)
        return tape.node(f"{name}/by_column", "Mul", product, scales)

    def _step(self, step: float) -> ir.Value:
        """`step`, computed from the size of an input: a constant would be folded into the column's scales."""
        tape = self.tape
        if not self.steps:
            size = tape.node("per_token/size", "Size", self.first_input)
            true = tape.node("per_token/true", "GreaterOrEqual", size, tape.constant(0, np.int64))
            self.steps[1.0] = tape.node("per_token/one", "Cast", true, to=ir.DataType.FLOAT)
        if step not in self.steps:
            constant = tape.constant(step, np.float32)
            self.steps[step] = tape.node(f"per_token/step/{len(self.steps)}", "Mul", self.steps[1.0], constant)
        return self.steps[step]

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


def _rest(tape: Tape, name: str, active: Activation) -> ir.Value:
    """What rounding left over, as codes in steps of `FINER`: together with the first codes about 16 bits."""
    rest = tape.node(f"{name}/rest", "Sub", active.units, tape.node(f"{name}/rounded", "Round", active.units))
    step, zero = tape.constant(FINER, np.float32), tape.constant(128, np.uint8)
    return tape.node(f"{name}/rest/codes", "QuantizeLinear", rest, step, zero)


def _activation(tape: Tape, x: ir.Value) -> Activation:
    name, producer = x.name, x.producer()
    if producer is not None and producer.op_type in FLOORS:
        magnitude, (zero_point, floor) = x, FLOORS[producer.op_type]
    else:
        magnitude, zero_point, floor = tape.node(f"{name}/magnitude", "Abs", x), 128, 0.0
    levels = 255 - zero_point
    # Small enough a peak would push the floor below code 0.
    smallest = max(SMALLEST, floor * levels / max(zero_point, 1))
    peak = tape.node(f"{name}/peak", "ReduceMax", magnitude, tape.ints(-1), keepdims=1)
    peak = tape.node(f"{name}/peak/floored", "Max", peak, tape.constant(smallest, np.float32))
    factor = tape.node(f"{name}/factor", "Div", tape.constant(levels, np.float32), peak)
    units = tape.node(f"{name}/units", "Mul", x, factor)
    one, zero = tape.constant(1, np.float32), tape.constant(zero_point, np.uint8)
    return Activation(units, peak, tape.node(f"{name}/codes", "QuantizeLinear", units, one, zero), zero_point)


def matrix_int8(tape: Tape, name: str, array: Floats) -> Matrix:
    """One scale per column."""
    integers, scales = to_int8(array.T)
    return Matrix(
        tape.weight(f"{name}/int8", integers.T),
        tape.weight(f"{name}/scales", scales),
    )


def table_int8(tape: Tape, name: str, array: Floats, take: Lookup, indices: ir.Value | None = None) -> ir.Value:  # noqa: ARG001
    """One scale per row, so that a rare token's small vector keeps its precision beside a frequent one's large."""
    integers, scales = to_int8(array)
    rows = tape.node(f"{name}/float", "Cast", take("int8", tape.weight(f"{name}/int8", integers)), to=ir.DataType.FLOAT)
    scale = take("scales", tape.weight(f"{name}/scales", scales.astype(np.float16)[:, None]))
    scale = tape.node(f"{name}/scales/float", "Cast", scale, to=ir.DataType.FLOAT)
    return tape.node(f"{name}/rows", "Mul", rows, scale)
