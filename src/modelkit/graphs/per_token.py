"""Integer matrix products with one activation scale per token, in standard operators.

A token's scale depends on that token alone, so a sentence gives the same vector alone and among others. Activations
are uint8 and weights int8: the pair onnxruntime has fast kernels for on x86. Dynamic per-token scales are those of
ZeroQuant (arXiv:2206.01861), there with its own kernels.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs.files import TensorFile
from modelkit.graphs.integers import LARGEST, Floats, to_int8
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
OLDEST_OPSET = 18
"""First with BitwiseAnd, and with ReduceMax over axes that are an input."""
SMALL_TABLE = 64 * 1024
"""Embedding tables below this many bytes (token types) stay as they are, unless a head multiplies with them, too."""


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


@dataclass(frozen=True)
class Precision:
    """Which stored matrices get more than the rest, as patterns of their names (`*.value.weight`)."""

    activations_16bit: tuple[str, ...] = ()
    """Their activation is quantized twice, the second time what the first left over: one more product each."""
    weights_8bit: tuple[str, ...] = ()
    """Stored in 8 bits whatever the rest is."""


Lookup = Callable[[str, ir.Value], ir.Value]
"""`take(name, stored)`: repeats the graph's own row lookup on another stored table of as many rows."""


class Table(Protocol):
    """A stored float32[rows, width] as integers, however often and wherever it is read."""

    def rows(self, tape: Tape, take: Lookup, indices: ir.Value | None) -> ir.Value:
        """The rows looked up, float32[..., width]; `indices` are those of a Gather."""

    def turned(self, tape: Tape) -> Matrix:
        """The same integers as a matrix, [width, rows], for a head tied to the table."""


WriteMatrix = Callable[[Tape, str, Floats], Matrix]
"""`write(tape, name, float32[inner, outer])`"""
WriteTable = Callable[[Tape, str, Floats], Table]
"""`write(tape, name, float32[rows, width])`"""


def quantize(
    model: ir.Model, tensors: TensorFile, precision: Precision, write_matrix: WriteMatrix, write_table: WriteTable
) -> None:
    """Replace in `model` every product with a stored float32 matrix, and every lookup in a stored table.

    Graphs inside nodes are rewritten as well; what is stored, and the chains that unpack it, stand in the outer graph
    once. Raises `StageError` when a pattern of `precision` names no stored matrix, or the model's opset is too old.
    """
    if (opset := model.graph.opset_imports.get("", 0)) < OLDEST_OPSET:
        raise StageError(
            f"the model has opset {opset}, integer products per token need {OLDEST_OPSET}",
            hint="export it with a newer opset, or use the scheme int8-dynamic",
        )
    nodes = list(model.graph.all_nodes())
    names = [str(factor.stored.name) for node in nodes if (factor := _factor_of(node))]
    _refuse_idle_patterns(precision, [name for name in names if name])
    tape = _Piece(tensors, {str(value.name) for value in _values(model)})
    _Rewriter(tape, tape, model.graph.inputs[0], precision, write_matrix, write_table).rewrite(model.graph)
    for value in tape.initializers:
        model.graph.register_initializer(value)
    _drop_unread(model, [node for node in nodes if node.op_type == "Transpose"])


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from (*graph.inputs, *graph.initializers.values())
        for node in graph:
            yield from node.outputs


def _drop_unread(model: ir.Model, turns: Sequence[ir.Node]) -> None:
    for node in turns:
        out = node.outputs[0]
        if _is_stored(node.inputs[0]) and not out.uses() and not out.is_graph_output() and node.graph:
            node.graph.remove(node, safe=True)
    for graph in model.graphs():
        for value in [v for v in graph.initializers.values() if not v.uses() and not v.is_graph_output()]:
            del graph.initializers[value.name]  # type: ignore[arg-type]


class _Piece(Tape):
    """Nodes that go into a graph that is there already: a name that is taken gets a number."""

    def __init__(self, tensors: TensorFile, names: set[str]) -> None:
        super().__init__(tensors, "per_token/constant")
        self._names = names

    def inner(self) -> _Piece:
        body = _Piece(self._tensors, self._names)
        body._shared, body._outer = self._shared, self
        return body

    def node(self, name: str, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return super().node(self._free(name), op_type, *inputs, **attributes)

    def weight(self, name: str, array: Any) -> ir.Value:
        return super().weight(name if self._outer else self._free(name), array)

    def _free(self, name: str) -> str:
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}/{number}"
        self._names.add(found)
        return found


def _refuse_idle_patterns(precision: Precision, names: list[str]) -> None:
    for pattern in (*precision.activations_16bit, *precision.weights_8bit):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise StageError(
                f"the pattern '{pattern}' of the scheme names no weight matrix",
                hint=f"matrices are called like {', '.join(names[:2])}",
            )


@dataclass(frozen=True)
class _Factor:
    """The stored operand of a product."""

    stored: ir.Value
    turned: bool
    """It is multiplied through a Transpose, as a tied head is."""


def _factor_of(node: ir.Node) -> _Factor | None:
    if node.op_type != "MatMul" or (right := node.inputs[1]) is None:
        return None
    if _is_stored(right):
        return _Factor(right, turned=False)
    turn = right.producer()
    if turn is None or turn.op_type != "Transpose" or not _is_stored(turn.inputs[0]):
        return None
    perm = turn.attributes.get("perm")
    swaps = perm is None or list(perm.as_ints()) == [1, 0]
    return _Factor(turn.inputs[0], turned=True) if swaps else None  # type: ignore[arg-type]


def _table_of(node: ir.Node) -> ir.Value | None:
    """The stored table of a lookup along its rows."""
    looks_up = node.op_type in ("Gather", "Slice") and _is_stored(node.inputs[0]) and _along_rows(node)
    return node.inputs[0] if looks_up else None


def _along_rows(node: ir.Node) -> bool:
    if node.op_type == "Gather":
        axis = node.attributes.get("axis")
        return axis is None or axis.as_int() in (0, -2)
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    return axes is None or (axes.const_value is not None and axes.const_value.numpy().tolist() == [0])


def _is_multiplied(table: ir.Value | None) -> bool:
    """Whether a head is tied to the table."""
    turns = [use.node for use in table.uses() if use.node.op_type == "Transpose"] if table else []
    return any(_factor_of(use.node) for turn in turns for use in turn.outputs[0].uses())


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
    """Of the graph being rewritten."""
    outer: Tape
    """Of the outermost graph, where all that is stored, and computed from that alone, stands for every body."""
    first_input: ir.Value
    precision: Precision
    write_matrix: WriteMatrix
    write_table: WriteTable
    activations: MutableMapping[ir.Value, Activation] = field(default_factory=dict)
    """Those this graph can see: its own and those around it."""
    matrices: dict[_Factor, Matrix] = field(default_factory=dict)
    """Layers and bodies may share one."""
    tables: dict[ir.Value, Table] = field(default_factory=dict)
    steps: dict[tuple[float, int], ir.Value] = field(default_factory=dict)
    products: Counter[tuple[ir.Value, float]] = field(default_factory=Counter)
    """How often this graph multiplies with a matrix, in which step."""

    def rewrite(self, graph: ir.Graph) -> None:
        for node in list(graph):
            start = len(self.tape.nodes)
            for body in _bodies(node):
                self._within().rewrite(body)
            value = self.replacement(node)
            new = self.tape.nodes[start:]
            if value is not None:
                _replace(graph, node, new, value)
            elif new:
                graph.insert_before(node, new)

    def _within(self) -> _Rewriter:
        visible: MutableMapping[ir.Value, Activation] = ChainMap({}, self.activations)
        return replace(self, tape=self.tape.inner(), activations=visible, products=Counter())

    def replacement(self, node: ir.Node) -> ir.Value | None:
        if (factor := _factor_of(node)) is not None:
            return self._product(node, factor)
        if (table := _table_of(node)) is not None and self._is_worth_it(table):
            return self._lookup(node, table)
        return None

    def _is_worth_it(self, table: ir.Value) -> bool:
        large = table.const_value.nbytes >= SMALL_TABLE  # type: ignore[union-attr]
        return large or table in self.tables or _is_multiplied(table)

    def _product(self, node: ir.Node, factor: _Factor) -> ir.Value:
        tape, x, name = self.tape, node.inputs[0], str(node.outputs[0].name)
        assert x is not None  # a product has two operands
        matrix, weight = self._matrix(factor), str(factor.stored.name)
        if x not in self.activations:
            self.activations[x] = _activation(tape, x)
        active = self.activations[x]
        sums = self._sums(f"{name}/sums", active.codes, active.zero_point, matrix, 1 / active.levels)
        if _named(weight, self.precision.activations_16bit):
            rest = _rest(tape, name, active)
            rest = self._sums(f"{name}/rest/sums", rest, MIDDLE, matrix, FINER / active.levels)
            sums = tape.node(f"{name}/finer", "Add", sums, rest)
        return tape.node(f"{name}/scaled", "Mul", sums, active.peak)

    def _matrix(self, factor: _Factor) -> Matrix:
        if factor not in self.matrices:
            self.matrices[factor] = self._write(factor)
        return self.matrices[factor]

    def _write(self, factor: _Factor) -> Matrix:
        stored, name = factor.stored, str(factor.stored.name)
        if factor.turned and (stored in self.tables or any(_table_of(use.node) for use in stored.uses())):
            return self._table(stored).turned(self.outer)
        array = _array(stored)
        write = matrix_int8 if _named(name, self.precision.weights_8bit) else self.write_matrix
        return write(self.outer, name, array.T if factor.turned else array)

    def _table(self, stored: ir.Value) -> Table:
        if stored not in self.tables:
            name = str(stored.name)
            # A slice of positions: small, read at every call, and added to every token; it gets 8 bits.
            exact = any(use.node.op_type == "Slice" for use in stored.uses())
            exact |= _is_multiplied(stored) and _named(name, self.precision.weights_8bit)
            write = table_int8 if exact else self.write_table
            self.tables[stored] = write(self.outer, name, _array(stored))
        return self.tables[stored]

    def _sums(self, name: str, codes: ir.Value, zero_point: int, matrix: Matrix, step: float) -> ir.Value:
        """The product for a token whose peak is 1.

        onnxruntime has one kernel (MatMulIntegerToFloat) for product, cast and scaling, and takes it where the scale is
        itself a product.
        """
        tape = self.tape
        zero = [tape.constant(zero_point, np.uint8)] if zero_point else []
        product = tape.node(name, "MatMulInteger", codes, matrix.integers, *zero)
        product = tape.node(f"{name}/float", "Cast", product, to=ir.DataType.FLOAT)
        scales = tape.node(f"{name}/scales", "Mul", self._step(step, matrix), matrix.scales)
        return tape.node(f"{name}/by_column", "Mul", product, scales)

    def _step(self, step: float, matrix: Matrix) -> ir.Value:
        """`step`, computed from the size of an input: a constant would be folded into the column's scales.

        Each further product with one matrix has its own: onnxruntime would compute equal scales once for all of them,
        and its kernel takes only scales that no other product reads.
        """
        tape, again = self.outer, self.products[matrix.integers, step]
        self.products[matrix.integers, step] += 1
        if (1.0, again) not in self.steps:
            size = tape.node("per_token/size", "Size", self.first_input)
            true = tape.node("per_token/true", "GreaterOrEqual", size, tape.constant(-again, np.int64))
            self.steps[1.0, again] = tape.node("per_token/one", "Cast", true, to=ir.DataType.FLOAT)
        if (step, again) not in self.steps:
            constant = tape.constant(step, np.float32)
            name = f"per_token/step/{len(self.steps)}"
            self.steps[step, again] = tape.node(name, "Mul", self.steps[1.0, again], constant)
        return self.steps[step, again]

    def _lookup(self, node: ir.Node, table: ir.Value) -> ir.Value:
        rest, name = node.inputs[1:], node.outputs[0].name

        def take(part: str, stored: ir.Value) -> ir.Value:
            return self.tape.node(f"{name}/{part}", node.op_type, stored, *rest)

        indices = rest[0] if node.op_type == "Gather" else None
        return self._table(table).rows(self.tape, take, indices)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _array(stored: ir.Value) -> Floats:
    array: Floats = stored.const_value.numpy()  # type: ignore[union-attr]
    _refuse_unstorable(str(stored.name), array)
    return array


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
    step, zero = tape.constant(FINER, np.float32), tape.constant(MIDDLE, np.uint8)
    return tape.node(f"{name}/rest/codes", "QuantizeLinear", rest, step, zero)


def _activation(tape: Tape, x: ir.Value) -> Activation:
    name, producer = x.name, x.producer()
    if producer is not None and producer.op_type in FLOORS:
        reach, (zero_point, floor) = x, FLOORS[producer.op_type]
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


def matrix_int8(tape: Tape, name: str, array: Floats) -> Matrix:
    """One scale per column."""
    integers, scales = to_int8(array.T)
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


def table_int8(tape: Tape, name: str, array: Floats) -> TableInt8:
    """Store `array` with one scale per row."""
    integers, scales = to_int8(array)
    stored = tape.weight(f"{name}/int8", integers)
    return TableInt8(name, stored, tape.weight(f"{name}/scales", scales.astype(np.float16)[:, None]))
