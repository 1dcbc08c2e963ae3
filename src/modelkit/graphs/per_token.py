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
from modelkit.graphs.calibrated import Calibration
from modelkit.graphs.files import TensorFile
from modelkit.graphs.integers import Floats
from modelkit.graphs.products import Factor, factor_of, is_multiplied, is_stored, stored_array, table_of
from modelkit.graphs.quantized import (
    FINER,
    MIDDLE,
    Activation,
    Matrix,
    Table,
    WriteMatrix,
    WriteTable,
    activation,
    is_lopsided,
    matrix_int8,
    rest,
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
    model: ir.Model,
    tensors: TensorFile,
    precision: Precision,
    write_matrix: WriteMatrix,
    write_table: WriteTable,
    calibration: Calibration,
) -> None:
    """Replace in `model` every product with a stored float32 matrix, and every lookup in a stored table.

    `calibration` prepares the matrices, but for those that are tables as well. Graphs inside nodes are rewritten, too;
    what is stored, and the chains that unpack it, stand in the outer graph once. Raises `StageError` when a pattern of
    `precision` names no stored matrix, or the model's opset is too old.
    """
    if (opset := model.graph.opset_imports.get("", 0)) < OLDEST_OPSET:
        raise StageError(
            f"the model has opset {opset}, integer products per token need {OLDEST_OPSET}",
            hint="export it with a newer opset, or use the scheme int8-dynamic",
        )
    nodes = list(model.graph.all_nodes())
    names = [str(factor.stored.name) for node in nodes if (factor := factor_of(node))]
    _refuse_idle_patterns(precision, [name for name in names if name])
    tape = Piece(tensors, "per_token/constant", {str(value.name) for value in _values(model)})
    first = model.graph.inputs[0]
    _Rewriter(tape, tape, first, precision, write_matrix, write_table, calibration).rewrite(model.graph)
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
        if is_stored(node.inputs[0]) and not out.uses() and not out.is_graph_output() and node.graph:
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


def _replace(graph: ir.Graph, old: ir.Node, new: Sequence[ir.Node], value: ir.Value) -> None:
    value.type, value.shape = old.outputs[0].type, old.outputs[0].shape
    ir.convenience.replace_nodes_and_values(graph, old, [old], new, old.outputs, [value])


@dataclass(frozen=True)
class _Smoothing:
    """What an activation is multiplied with before it is quantized, and all weights that read it divided by."""

    multipliers: Floats
    value: ir.Value
    """The same in the graph."""


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
    calibration: Calibration
    activations: MutableMapping[tuple[ir.Value, ir.Value | None], Activation] = field(default_factory=dict)
    """Those this graph can see, its own and those around it, by what they were made from and multiplied with."""
    matrices: dict[Factor, Matrix] = field(default_factory=dict)
    """Layers and bodies may share one."""
    smoothed: dict[Factor, _Smoothing] = field(default_factory=dict)
    """Those whose activation is smoothed, whoever reads them."""
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
        visible: MutableMapping[tuple[ir.Value, ir.Value | None], Activation] = ChainMap({}, self.activations)
        return replace(self, tape=self.tape.inner(), activations=visible, products=Counter())

    def replacement(self, node: ir.Node) -> ir.Value | None:
        if (factor := factor_of(node)) is not None:
            return self._product(node, factor)
        if (table := table_of(node)) is not None and self._is_worth_it(table):
            return self._lookup(node, table)
        return None

    def _is_worth_it(self, table: ir.Value) -> bool:
        large = table.const_value.nbytes >= SMALL_TABLE  # type: ignore[union-attr]
        return large or table in self.tables or is_multiplied(table)

    def _product(self, node: ir.Node, factor: Factor) -> ir.Value:
        tape, x, name = self.tape, node.inputs[0], str(node.outputs[0].name)
        assert x is not None  # a product has two operands
        matrix, weight = self._matrix(factor, x), str(factor.stored.name)
        active = self._activation(x, factor)
        sums = self._sums(f"{name}/sums", active.codes, active.zero_point, matrix, 1 / active.levels)
        if _named(weight, self.precision.activations_16bit):
            finer = self._sums(f"{name}/rest/sums", rest(tape, name, active), MIDDLE, matrix, FINER / active.levels)
            sums = tape.node(f"{name}/finer", "Add", sums, finer)
        return tape.node(f"{name}/scaled", "Mul", sums, active.peak)

    def _activation(self, x: ir.Value, factor: Factor) -> Activation:
        smoothing = self.smoothed.get(factor)
        key = x, smoothing.value if smoothing else None
        if key not in self.activations:
            read = self.tape.node(f"{x.name}/smoothed", "Mul", x, smoothing.value) if smoothing else x
            self.activations[key] = activation(self.tape, read)
        return self.activations[key]

    def _matrix(self, factor: Factor, x: ir.Value) -> Matrix:
        if factor not in self.matrices:
            self._smooth(x)
            self.matrices[factor] = self._write(factor, x)
        return self.matrices[factor]

    def _smooth(self, x: ir.Value) -> None:
        """Once for all that multiply with `x`, unless one of them is stored already, or looked up in as well."""
        factors = [factor for use in x.uses() if use.idx == 0 and (factor := factor_of(use.node))]
        settled = any(
            factor in self.matrices or factor in self.smoothed or self._is_table(factor) for factor in factors
        )
        if settled or is_lopsided(x):
            return
        multipliers = self.calibration.multipliers(str(x.name), [factor.array() for factor in factors])
        if multipliers is not None:
            name = f"{x.name}/smoothing"
            value = self.outer.weight(name, multipliers.astype(np.float16))
            value = self.outer.node(f"{name}/float", "Cast", value, to=ir.DataType.FLOAT)
            self.smoothed.update(dict.fromkeys(factors, _Smoothing(multipliers, value)))

    def _is_table(self, factor: Factor) -> bool:
        """Whether rows are, or were before this was rewritten, looked up in it as well."""
        stored = factor.stored
        return factor.turned and (stored in self.tables or any(table_of(use.node) for use in stored.uses()))

    def _write(self, factor: Factor, x: ir.Value) -> Matrix:
        stored, name = factor.stored, str(factor.stored.name)
        if self._is_table(factor):
            return self._table(stored).turned(self.outer)
        array, multipliers = factor.array(), self.smoothed[factor].multipliers if factor in self.smoothed else None
        rounding = self.calibration.rounding_of(str(x.name), multipliers)
        write = matrix_int8 if _named(name, self.precision.weights_8bit) else self.write_matrix
        return write(self.outer, name, array if multipliers is None else array / multipliers[:, None], rounding)

    def _table(self, stored: ir.Value) -> Table:
        if stored not in self.tables:
            name = str(stored.name)
            # A slice of positions: small, read at every call, and added to every token; it gets 8 bits.
            exact = any(use.node.op_type == "Slice" for use in stored.uses())
            multiplied = is_multiplied(stored)
            exact |= multiplied and _named(name, self.precision.weights_8bit)
            write = table_int8 if exact else self.write_table
            rounding = self.calibration.rounding_of_table()
            self.tables[stored] = write(self.outer, name, stored_array(stored), rounding, multiplied=multiplied)
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
