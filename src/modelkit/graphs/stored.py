"""What a model stores, and what reads it: matrices and kernels it multiplies with, tables it looks rows up in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from modelkit.errors import StageError
from modelkit.graphs.files import read_graph

PRODUCTS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "MatMulInteger16", "Einsum"), (0, 1)),
    **dict.fromkeys(("FusedMatMul", "FusedGemm", "TransposeMatMul"), (0, 1)),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), (0, 1)),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), (0, 3)),
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "FusedConv"), (1,)),
    "QLinearConv": (3,),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), (1, 2)),
    **dict.fromkeys(("Attention", "QAttention", "MatMulNBits", "MatMulBnb4"), (1,)),
    "MoE": (2, 4, 6),
    "QMoE": (2, 5, 8),
}
"""Operator -> its inputs that may be a stored matrix, https://onnx.ai/onnx/operators/ and
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md, as for the others below."""
LOOKUPS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Gather", "GatherND", "Slice", "GatherBlockQuantized"), (0,)),
    **dict.fromkeys(("EmbedLayerNormalization", "QEmbedLayerNormalization"), (2, 3, 4)),
}
"""Operator -> its inputs that may be a stored table."""
PACKED = {"MatMulNBits": "bits", "GatherBlockQuantized": "bits", "QMoE": "expert_weight_bits", "MatMulBnb4": ""}
"""Operator that unpacks the bytes it reads -> its attribute that says how many bits make a value; 4 without it."""
MOVES = {"Gather", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
"""Operators whose output is their first input, or a part of it, in another order."""
NO_PARAMETERS = {
    *(ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT32, ir.DataType.UINT64),
    *(ir.DataType.BOOL, ir.DataType.STRING),
}
"""Element types of indices, shapes and masks."""
FEW = 8
"""A tensor read beside another that has so many times its values holds the other's scales, zero points or steps."""

Sources: TypeAlias = dict[ir.Value, tuple[ir.Value, ...]]
"""Value -> the stored tensors that it is computed from, where it is computed from nothing else."""


@dataclass(frozen=True)
class Matrix:
    """A stored tensor that the model multiplies with, or looks rows up in."""

    stored: ir.Value
    values: int
    """How many numbers it stands for: more than its elements, where these are packed."""
    bits: int
    """Of storage for each of them, without scales."""
    reader: ir.Node
    """The first node that reads it."""
    multiplied: bool

    def read_by(self, op_type: str) -> bool:
        """Whether a node of that operator reads what is stored, as it is or after what is computed from it alone."""
        return self.reader.op_type == op_type or any(node.op_type == op_type for node, _ in self.stored.uses())

    @property
    def tensor(self) -> ir.TensorProtocol:
        """What is stored."""
        assert self.stored.const_value is not None
        return self.stored.const_value


def opened(path: Path) -> ir.Model:
    """The model at `path`; external tensors stay on disk. Raises `StageError` when it cannot be read."""
    try:
        model = ir.from_proto(read_graph(path))
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(f"has a graph without sense ({error})", where=path, hint="build it again") from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def tensors(model: ir.Model) -> Iterator[ir.Value]:
    """Every stored tensor, of all graphs and functions: initializers, and what Constant nodes hold."""
    for graph in (*model.graphs(), *model.functions.values()):
        yield from (value for value in getattr(graph, "initializers", {}).values() if value.const_value is not None)
    for node in nodes(model):
        if node.op_type == "Constant" and (held := node.attributes.get("value")) is not None:
            node.outputs[0].const_value = held.as_tensor()
            yield node.outputs[0]


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node, of the graphs inside nodes and of functions too; a node comes before those inside it."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def matrices(model: ir.Model) -> list[Matrix]:
    """The stored matrices and tables, each once, as the nodes read them.

    Between the stored tensor and its reader may stand whatever is computed from stored tensors alone: a cast, a
    dequantization, the unpacking of codes. Functions are inlined, which changes `model`.
    """
    if model.functions:
        InlinePass()(model)
    sources: Sources = {value: (value,) for value in tensors(model)}
    found: dict[ir.Value, Matrix] = {}
    beside: dict[ir.Value, tuple[object, ...]] = {}
    for node in nodes(model):
        for matrix in _read_by(node, sources):
            known = found.setdefault(matrix.stored, matrix)
            # A table that is also a head counts once, and as both.
            found[matrix.stored] = replace(known, multiplied=known.multiplied or matrix.multiplied)
            beside.setdefault(matrix.stored, (_tensor(matrix.stored).shape[0], node.op_type, *node.inputs[1:]))
        _follow(node, sources)
    return _without_scales(found, beside)


def _read_by(node: ir.Node, sources: Sources) -> Iterator[Matrix]:
    for operand, multiplied in _operands(node, sources):
        held = [_matrix(leaf, node, multiplied) for leaf in sources[operand] if _holds_rows(leaf, node)]
        most = max((matrix.values for matrix in held), default=0)
        yield from (matrix for matrix in held if matrix.values * FEW > most)


def _operands(node: ir.Node, sources: Sources) -> Iterator[tuple[ir.Value, bool]]:
    """What `node` reads of stored tensors, and whether it multiplies with it."""
    alone = _is_stored(node, sources)
    places = PRODUCTS.get(node.op_type, ())
    # Where both factors are stored, the first is an activation, such as DeBERTa's distances.
    for place in places[-1:] if alone else places:
        if place < len(node.inputs) and (value := node.inputs[place]) in sources:
            yield value, True
    # Rows taken by a stored index are stored themselves: their reader is yet to come.
    for place in () if alone else LOOKUPS.get(node.op_type, ()):
        if place < len(node.inputs) and (value := node.inputs[place]) in sources:
            yield value, False


def _follow(node: ir.Node, sources: Sources) -> None:
    # What a product gives is an activation, even one of two stored operands.
    if _is_stored(node, sources) and node.op_type not in PRODUCTS:
        leaves = tuple(dict.fromkeys(leaf for value in node.inputs if value for leaf in sources[value]))
        sources.update(dict.fromkeys(node.outputs, leaves))


def _is_stored(node: ir.Node, sources: Sources) -> bool:
    """Whether it computes from stored tensors alone, as a runtime may do once and for all when it loads the model."""
    given = [value for value in node.inputs if value is not None]
    return bool(given) and all(value in sources for value in given)


def _holds_rows(leaf: ir.Value, node: ir.Node) -> bool:
    tensor = _tensor(leaf)
    return node.op_type in PACKED or (tensor.dtype not in NO_PARAMETERS and sum(n != 1 for n in tensor.shape) > 1)


def _matrix(leaf: ir.Value, node: ir.Node, multiplied: bool) -> Matrix:
    stored = _tensor(leaf).size * _tensor(leaf).dtype.bitwidth
    bits = _bits(leaf, node)
    return Matrix(leaf, stored // bits, bits, node, multiplied)


def _bits(leaf: ir.Value, node: ir.Node) -> int:
    width = _tensor(leaf).dtype.bitwidth
    if node.op_type in PACKED and width == 8:
        said = node.attributes.get(PACKED[node.op_type])
        return said.as_int() if said else 4
    return min((shift for shift in _shifts(leaf) if 0 < shift < width), default=width)


def _shifts(value: ir.Value) -> Iterator[int]:
    """By how many bits `value`, or what is taken of it, is shifted: that many of them make a number."""
    for node, place in value.uses():
        if node.op_type == "BitShift" and place == 0 and (amount := node.inputs[1]) and amount.const_value:
            yield from amount.const_value.numpy().reshape(-1).tolist()
        elif node.op_type in MOVES and place == 0:
            yield from _shifts(node.outputs[0])


def _tensor(leaf: ir.Value) -> ir.TensorProtocol:
    assert leaf.const_value is not None  # `tensors` gives no other
    return leaf.const_value


def _without_scales(found: dict[ir.Value, Matrix], beside: dict[ir.Value, tuple[object, ...]]) -> list[Matrix]:
    """Without what is looked up by the same index, in as many rows, as a table of `FEW` times its values."""
    most: dict[object, int] = defaultdict(int)
    for stored, by in beside.items():
        most[by] = max(most[by], found[stored].values)
    return [one for stored, one in found.items() if one.multiplied or one.values * FEW > most[beside[stored]]]
