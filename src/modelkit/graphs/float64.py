"""What a float32 graph computes, in float64 and one node after the other, as far as somebody asks.

The last bits of a float32 sum depend on the processor. What is decided by them, the rounding of a weight for example,
would come out differently on the next machine; float64 leaves room to cut off what depends on the machine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

from modelkit.errors import StageError
from modelkit.graphs.files import array_of
from modelkit.graphs.pieces import Graph, by_branches, head

Float64s: TypeAlias = npt.NDArray[np.float64]
Feed: TypeAlias = Mapping[str, npt.NDArray[Any]]
Run: TypeAlias = Callable[[dict[str, Any]], Sequence[Any]]

KNOTS = np.arange(6 * 512 + 1) / 512
"""Places at which erf is known; from 6 on it is 1 in float64."""
_ERF = np.array([math.erf(knot) for knot in KNOTS])
_SLOPE = 2 / math.sqrt(math.pi) * np.exp(-np.square(KNOTS))


def erf(x: Float64s) -> Float64s:
    """The error function to 1e-14, by its Taylor polynomial around the nearest knot; numpy has none."""
    size = np.minimum(np.abs(x), KNOTS[-1])
    nearest = np.rint(size * 512).astype(np.intp)
    at = KNOTS[nearest]
    off = size - at
    terms = 1 - off * (at - off * ((2 * at**2 - 1) / 3 + off * (at / 2 - at**3 / 3)))
    value: Float64s = np.sign(x) * (_ERF[nearest] + _SLOPE[nearest] * off * terms)
    return value


OWN: Mapping[str, Callable[[Float64s], Float64s]] = {
    "Erf": erf,
    "Gelu": lambda x: x * (0.5 + 0.5 * erf(x / math.sqrt(2))),
}
"""Where the reference implementation would take most of the time."""


def significant(values: Float64s, bits: int) -> Float64s:
    """Numbers above zero to so many binary digits: what depends on the machine is cut off."""
    unit = 2.0 ** (np.floor(np.log2(values)) - bits)
    cut: Float64s = np.rint(values / unit) * unit
    return cut


class Activations:
    """The values of one part of a model for some feeds; each run of the part is one feed.

    Ask in the order of the graph: what all readers of a value have read is forgotten.
    """

    def __init__(self, path: Any, feeds: Iterable[Feed]) -> None:
        self.feeds = tuple(feeds)
        self._walks = [_Walk(Graph(path, taken), some) for taken, some in by_branches(self.feeds)]

    def of(self, value: str) -> Float64s | None:
        """float64[tokens, width]: the value in all runs that compute it, one after the other; None if none does.

        Raises `StageError` for an operator of which ONNX has no reference implementation.
        """
        found = [array for walk in self._walks if walk.has(value) for array in walk.until(value)]
        return np.concatenate([array.reshape(-1, array.shape[-1]) for array in found]) if found else None


class _Walk:
    """One way through the graph, with every feed that takes it."""

    def __init__(self, graph: Graph, feeds: Sequence[Feed]) -> None:
        self._graph = graph
        self._nodes = iter(graph.proto.graph.node)
        self._unread = Counter(name for node in graph.proto.graph.node for name in node.input)
        self._values = [{name: _wide(array) for name, array in feed.items()} for feed in feeds]

    def has(self, value: str) -> bool:
        return value in self._graph.makers or value in self._graph.inputs

    def until(self, value: str) -> list[npt.NDArray[Any]]:
        """The value in every run, after the nodes that it needs."""
        while value not in self._values[0]:
            self._step(next(self._nodes))
        return [values[value] for values in self._values]

    def _step(self, node: onnx.NodeProto) -> None:
        # A table is looked up as it is: widening all of it for a few rows would take twice its size.
        widen = np.asarray if node.op_type == "Gather" else _wide
        tensors, folder = self._graph.tensors, self._graph.path.parent
        stored = {name: widen(array_of(tensors[name], folder)) for name in node.input if name in tensors}
        if node.op_type == "MatMul" and node.input[1] in stored:
            self._multiply(node, stored[node.input[1]])
        else:
            run = _runner(self._graph.proto, node)
            for values in self._values:
                given = run(stored | {name: values[name] for name in node.input if name and name not in stored})
                values |= {name: _wide(array) for name, array in zip(node.output, given, strict=False) if name}
        self._unread.subtract(node.input)
        for name in node.input:
            if not self._unread[name]:
                for values in self._values:
                    values.pop(name, None)

    def _multiply(self, node: onnx.NodeProto, matrix: npt.NDArray[Any]) -> None:
        """All runs at once: one product of many rows takes a fraction of the time of many of few."""
        read = [values[node.input[0]] for values in self._values]
        product = np.concatenate([array.reshape(-1, len(matrix)) for array in read]) @ matrix
        ends = np.cumsum([array.size // len(matrix) for array in read])[:-1]
        for values, array, rows in zip(self._values, read, np.split(product, ends), strict=True):
            values[node.output[0]] = rows.reshape(*array.shape[:-1], -1)


def _runner(model: onnx.ModelProto, node: onnx.NodeProto) -> Run:
    if (own := OWN.get(node.op_type)) and all(attribute.s == b"none" for attribute in node.attribute):
        return lambda values: [own(values[node.input[0]])]
    alone = head(model)
    alone.graph.name = node.op_type
    alone.graph.node.append(node)
    for attribute in alone.graph.node[0].attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
            attribute.i = onnx.TensorProto.DOUBLE
    alone.graph.input.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name)
    alone.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    try:
        evaluator = ReferenceEvaluator(alone)
    except (NotImplementedError, RuntimeError) as error:
        raise StageError(
            f"ONNX has no reference implementation of {node.domain or 'ai.onnx'}.{node.op_type}",
            hint="a scheme that rounds to nearest and smooths nothing needs none",
        ) from error
    return lambda values: list(evaluator.run(None, values))


def _wide(array: Any) -> npt.NDArray[Any]:
    same: npt.NDArray[Any] = np.asarray(array)
    return same.astype(np.float64) if same.dtype == np.float32 else same
