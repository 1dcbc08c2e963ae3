"""A finished graph opened for change: its tensors as arrays, its nodes, and what reads which value.

Made for spoiling copies of artifacts (`modelkit.faults`); builds go through `modelkit.graphs.tape`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelkit.graphs.files import all_graphs, all_initializers, array_of, external_location, read_graph

if TYPE_CHECKING:
    import numpy.typing as npt

MATRIX = 512
"""Elements from which on a stored tensor of two axes or more counts as a weight matrix."""
WEIGHTS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
SCALES, BLOCKS = "/scales", "/blocks"
"""How the per-token schemes end the names of what integers are multiplied by: rows or columns, and blocks of them."""


class Surgery:
    """The graph of one ONNX file. Raises `StageError` when `path` is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.proto = read_graph(path)

    def save(self) -> None:
        """Write the graph over the file it came from."""
        self.path.write_bytes(self.proto.SerializeToString(deterministic=True))

    @property
    def graph(self) -> onnx.GraphProto:
        """The outer graph."""
        return self.proto.graph

    def tensors(self) -> list[TensorProto]:
        """Every stored tensor, those inside nested graphs included."""
        return list(all_initializers(self.graph))

    def matrices(self) -> list[TensorProto]:
        """The stored weight matrices that products read: no table that is looked up, no scales."""
        looked_up = self._looked_up()
        return [tensor for tensor in self.tensors() if _is_matrix(tensor) and tensor.name not in looked_up]

    def tables(self) -> list[TensorProto]:
        """The stored weight matrices whose rows are looked up by id."""
        looked_up = self._looked_up()
        return [tensor for tensor in self.tensors() if _is_matrix(tensor) and tensor.name in looked_up]

    def scales(self) -> list[TensorProto]:
        """The stored scales of matrices (not of tables)."""
        looked_up = self._looked_up()
        return [tensor for tensor in self.tensors() if tensor.name.endswith(SCALES) and tensor.name not in looked_up]

    def floats(self, ending: str) -> list[TensorProto]:
        """Stored float tensors whose name ends so: `.bias`, `LayerNorm.weight`."""
        return [tensor for tensor in self.tensors() if tensor.data_type in FLOATS and tensor.name.endswith(ending)]

    def array(self, tensor: TensorProto) -> npt.NDArray[Any]:
        """A copy of what is stored, also where it is stored in the data file. Raises `StageError` where it is not."""
        return np.array(array_of(tensor, self.path.parent))

    def put(self, tensor: TensorProto, array: npt.NDArray[Any]) -> None:
        """Store `array`, of the same shape, in the place of what is there, and as its element type.

        Raises `ValueError` for another shape: in the data file it would run into the next tensor.
        """
        if array.shape != tuple(tensor.dims):
            raise ValueError(f"{tensor.name} has the shape {[*tensor.dims]}, and not {[*array.shape]}")
        content = numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type))).raw_data
        if place := external_location(tensor):
            with (self.path.parent / place["location"]).open("r+b") as data:
                data.seek(int(place.get("offset", 0)))
                data.write(content)
            return
        tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content))

    def add(self, name: str, array: npt.NDArray[Any]) -> str:
        """Store one tensor more; its name."""
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def nodes(self, *operators: str) -> list[onnx.NodeProto]:
        """Every node, or those of some operators, nested graphs included."""
        return [node for node in _nodes(self.graph) if not operators or node.op_type in operators]

    def readers(self, value: str, *operators: str) -> list[onnx.NodeProto]:
        """The nodes that read `value`."""
        return [node for node in self.nodes(*operators) if value in node.input]

    def maker(self, value: str) -> onnx.NodeProto | None:
        """The node that gives `value`."""
        return next((node for node in self.nodes() if value in node.output), None)

    def insert(self, operator: str, inputs: Sequence[str], output: str, after: str | None = None, **fields: Any) -> str:
        """A new node of the outer graph, behind the one that gives `after`, or in front of all; its output."""
        made = [place for place, node in enumerate(self.graph.node) if after is not None and after in node.output]
        node = helper.make_node(operator, list(inputs), [output], name=output, **fields)
        self.graph.node.insert(made[0] + 1 if made else 0, node)
        return output

    def redirect(self, old: str, new: str) -> None:
        """Let every node read `new` in the place of `old`, but for the one that makes `new`."""
        for node in self.nodes():
            if new not in node.output:
                node.input[:] = [new if name == old else name for name in node.input]

    def _looked_up(self) -> set[str]:
        return {node.input[0] for node in self.nodes("Gather", "Slice")}


def _is_matrix(tensor: TensorProto) -> bool:
    return (
        tensor.data_type in WEIGHTS
        and len(tensor.dims) > 1
        and math.prod(tensor.dims) >= MATRIX
        and not tensor.name.endswith((SCALES, BLOCKS))
    )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for inner in all_graphs(graph):
        yield from inner.node
