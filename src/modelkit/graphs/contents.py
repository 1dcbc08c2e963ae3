"""What stands in an ONNX file: every graph, node and stored tensor, and values among them that are no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelkit.errors import StageError
from modelkit.graphs.files import all_graphs, array_of

FLOATS = (
    *(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16),
    *(onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2),
)


def bodies(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The graph, the model's functions, and every graph inside a node of one of them."""
    for body in (model.graph, *model.functions):
        yield from all_graphs(body)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, whichever graph it stands in."""
    for body in bodies(model):
        yield from body.node


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the file: stored ones, sparse ones, and those in the attributes of nodes."""
    for body in bodies(model):
        yield from getattr(body, "initializer", ())
        for sparse in getattr(body, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def no_numbers(model: onnx.ModelProto, folder: Path) -> Iterator[str]:
    """A sentence for each place that holds NaN, or infinity among weights; one tensor in memory at a time.

    Quantizing swallows a NaN, so that no output shows it. What cannot be read is told by whoever looks for that.
    """
    for tensor in tensors(model):
        if tensor.data_type not in FLOATS:
            continue
        try:
            stored = array_of(tensor, folder)
        except StageError:
            continue
        if held := _held(stored):
            yield f"tensor {tensor.name} holds {held}"
    for node in nodes(model):
        for attribute in node.attribute:
            if np.isnan([attribute.f, *attribute.floats]).any():
                yield f"{attribute.name} of {node.op_type} {node.name or node.output[0]} holds NaN"


def _held(stored: Any) -> str | None:
    """Infinity may be meant: a mask is made of it and of zeros. Beside any other number it is damage."""
    if np.isnan(stored).any():
        return "NaN"
    finite = np.isfinite(stored)
    return "infinity among its values" if not finite.all() and stored[finite].any() else None
