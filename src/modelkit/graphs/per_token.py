"""Rewriting a float32 graph to integer products with one activation scale per token, in standard operators.

What is written in place of a product or a lookup stands in `quantized`; here is what finds them, in every body of the
graph, and puts it there.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs import stored
from modelkit.graphs.files import TensorFile
from modelkit.graphs.quantized import (
    FINER,
    MIDDLE,
    Activation,
    Matrix,
    Table,
    WriteMatrix,
    WriteTable,
    activation,
    matrix_int8,
    rest,
    stored_array,
    table_int8,
)
from modelkit.graphs.tape import Piece, Tape

OLDEST_OPSET = 18
"""First with BitwiseAnd, and with ReduceMax over axes that are an input."""
SMALL_TABLE = 64 * 1024
"""Embedding tables below this many bytes (token types) stay as they are, unless a head multiplies with them, too."""


@dataclass(frozen=True)
class Precision:
    """Which stored matrices get more than the rest, as patterns of their names (`*.value.weight`)."""

    activations_16bit: tuple[str, ...] = ()
    """Their activation is quantized twice, the second time what the first left over: one more product each."""
    weights_8bit: tuple[str, ...] = ()
    """Stored in 8 bits whatever the rest is."""


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
    tape = Piece(tensors, "per_token/constant", {str(value.name) for value in _values(model)})
    _Rewriter(tape, tape, model.graph.inputs[0], precision, write_matrix, write_table).rewrite(model.graph)
    for value in tape.initializers:
        model.graph.register_initializer(value)
    _drop_unread(model, [node for node in nodes if node.op_type == "Transpose"])


def promised(matrix: stored.Matrix, precision: Precision, bits: int) -> int:
    """How many bits `quantize`, with writers of `bits`, leaves to a value of `matrix`: 32 where it leaves it alone."""
    if matrix.read_by("Conv") or not (matrix.multiplied or matrix.values * 4 >= SMALL_TABLE):
        return 32
    # What is written is called after what it was made from: `x.weight/codes`.
    name = str(matrix.stored.name)
    finer = any(_named(one, precision.weights_8bit) for one in (name, name.rpartition("/")[0]))
    return max(bits, 8) if finer or matrix.read_by("Slice") else bits


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
            self.activations[x] = activation(tape, x)
        active = self.activations[x]
        sums = self._sums(f"{name}/sums", active.codes, active.zero_point, matrix, 1 / active.levels)
        if _named(weight, self.precision.activations_16bit):
            finer = self._sums(f"{name}/rest/sums", rest(tape, name, active), MIDDLE, matrix, FINER / active.levels)
            sums = tape.node(f"{name}/finer", "Add", sums, finer)
        return tape.node(f"{name}/scaled", "Mul", sums, active.peak)

    def _matrix(self, factor: _Factor) -> Matrix:
        if factor not in self.matrices:
            self.matrices[factor] = self._write(factor)
        return self.matrices[factor]

    def _write(self, factor: _Factor) -> Matrix:
        stored, name = factor.stored, str(factor.stored.name)
        if factor.turned and (stored in self.tables or any(_table_of(use.node) for use in stored.uses())):
            return self._table(stored).turned(self.outer)
        array = stored_array(stored)
        write = matrix_int8 if _named(name, self.precision.weights_8bit) else self.write_matrix
        return write(self.outer, name, array.T if factor.turned else array)

    def _table(self, stored: ir.Value) -> Table:
        if stored not in self.tables:
            name = str(stored.name)
            # A slice of positions: small, read at every call, and added to every token; it gets 8 bits.
            exact = any(use.node.op_type == "Slice" for use in stored.uses())
            multiplied = _is_multiplied(stored)
            exact |= multiplied and _named(name, self.precision.weights_8bit)
            write = table_int8 if exact else self.write_table
            self.tables[stored] = write(self.outer, name, stored_array(stored), multiplied=multiplied)
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


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
