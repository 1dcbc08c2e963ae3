"""Two graphs of one model, a piece at a time: the values that both have by name, and what computes each from the last.

A quantized graph keeps the names of the values it was made from, so that each is the end of one piece in either graph.
Works on protobufs whose large tensors stay on disk; a tensor is read when the piece that needs it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from modelkit.errors import CheckError
from modelkit.graphs.files import array_of, external_location, read_graph
from modelkit.runtime import Session

GIVEN, CHOSEN, AFTER = "/given", "/chosen", "/after"
"""Suffixes of the inputs by which a value of the reference is replaced, and of what goes on from there."""
FOUR_BITS = {onnx.TensorProto.UINT4, onnx.TensorProto.INT4}
MEASURED = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
"""Element types whose differences can be measured."""


@dataclass(frozen=True)
class Piece:
    """What computes one value that both graphs have."""

    value: str
    reads: tuple[str, ...]
    """The values (of both graphs, or inputs) that the artifact's nodes start from."""
    nodes: tuple[onnx.NodeProto, ...]
    """The artifact's, in order."""
    original: tuple[onnx.NodeProto, ...]
    """The reference's, in order."""
    original_reads: tuple[str, ...]
    """What those start from."""
    weights: tuple[str, ...]
    """The reference's stored tensors that it reads, by name."""
    kind: str
    """The reference's operator."""
    float_bytes: int
    """Of `weights`."""
    stored_bytes: int
    """Of all that the artifact stores for it; what pieces share counts in each."""


@dataclass
class Graph:
    """One graph without its large tensors, with the branches of `If` that a feed takes put in place."""

    path: Path
    branches: Mapping[str, bool] = field(default_factory=dict)
    """Name of a bool input that an `If` asks -> its value."""

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The flat graph. Raises `CheckError` for an `If` that asks something computed."""
        proto = read_graph(self.path)
        inner = [node for node in proto.graph.node if node.op_type == "If"]
        for node in inner:
            if node.input[0] not in self.branches:
                raise CheckError(f"the branch that '{node.name}' takes depends on a computed value")
        nodes = [each for node in proto.graph.node for each in self._flat(node, proto.graph)]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        return proto

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """Every stored tensor by its name."""
        return {tensor.name: tensor for tensor in self.proto.graph.initializer}

    @cached_property
    def makers(self) -> dict[str, int]:
        """Value -> place of the node that makes it."""
        return {name: place for place, node in enumerate(self.proto.graph.node) for name in node.output if name}

    @cached_property
    def inputs(self) -> dict[str, onnx.ValueInfoProto]:
        """Those that are fed."""
        return {one.name: one for one in self.proto.graph.input if one.name not in self.tensors}

    def before(self, value: str, known: Iterable[str]) -> tuple[list[onnx.NodeProto], list[str]]:
        """The nodes that compute `value` from `known` values and stored tensors, in order, and what of `known` they
        read."""
        ends, places, reads, open_ = {*known} - {value}, set(), set(), [value]
        while open_:
            name = open_.pop()
            if name in ends or name in self.inputs:
                reads.add(name)
            elif name in self.makers and (place := self.makers[name]) not in places:
                places.add(place)
                open_.extend(filter(None, self.proto.graph.node[place].input))
        return [self.proto.graph.node[place] for place in sorted(places)], sorted(reads)

    def stored(self, nodes: Iterable[onnx.NodeProto]) -> list[str]:
        """The tensors that `nodes` read, each once."""
        return [*dict.fromkeys(name for node in nodes for name in node.input if name in self.tensors)]

    def size(self, name: str) -> int:
        """Bytes of a stored tensor."""
        tensor = self.tensors[name]
        values = math.prod(tensor.dims)
        # numpy has no type of four bits: it holds each value in a byte.
        values = math.ceil(values / 2) if tensor.data_type in FOUR_BITS else values
        return int(values * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)

    def content(self, name: str) -> bytes:
        """The stored tensor's numbers, from the data file if they are there. Raises `StageError` when they are not."""
        return bytes(array_of(self.tensors[name], self.path.parent).tobytes())

    def _flat(self, node: onnx.NodeProto, outer: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
        if node.op_type != "If":
            yield node
            return
        wanted = "then_branch" if self.branches[node.input[0]] else "else_branch"
        body = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        outer.initializer.extend(body.initializer)
        yield from body.node
        for inner, name in zip(body.output, node.output, strict=True):
            yield helper.make_node("Identity", [inner.name], [name], name=f"{name}/taken")


def branches(feed: Mapping[str, Any]) -> dict[str, bool]:
    """The bool inputs of one element: what an `If` may ask."""
    return {name: bool(value.reshape(-1)[0]) for name, value in feed.items() if value.dtype == bool and value.size == 1}


def by_branches(feeds: Iterable[Mapping[str, Any]]) -> Iterator[tuple[dict[str, bool], list[Mapping[str, Any]]]]:
    """Each way through the branches that some of the `feeds` take, with those."""
    found: dict[tuple[tuple[str, bool], ...], list[Mapping[str, Any]]] = {}
    for feed in feeds:
        found.setdefault(tuple(sorted(branches(feed).items())), []).append(feed)
    return ((dict(taken), some) for taken, some in found.items())


def apart(path: Path, into: Path) -> Path:
    """The model of one file with its large tensors beside it in the folder `into`; one that is so already, as it is."""
    if any(external_location(tensor) for tensor in read_graph(path).graph.initializer):
        return path
    model = onnx.load(path)
    target = into / path.name
    onnx.save_model(model, target, save_as_external_data=True, location=f"{path.name}.data")
    return target


def pieces(reference: Graph, artifact: Graph) -> list[Piece]:
    """Those that the two graphs compute otherwise, in the reference's order."""
    types = _types(reference)
    both = [name for name in reference.makers if name in artifact.makers and types.get(name) in MEASURED]
    found = []
    for value in both:
        nodes, reads = artifact.before(value, both)
        theirs, their_reads = reference.before(value, both)
        weights, stored = reference.stored(theirs), artifact.stored(nodes)
        if _alike(nodes, theirs) and all(artifact.content(name) == reference.content(name) for name in stored):
            continue
        sizes = sum(map(reference.size, weights)), sum(map(artifact.size, stored))
        kind = reference.proto.graph.node[reference.makers[value]].op_type
        found.append(Piece(
            value, tuple(reads), tuple(nodes), tuple(theirs), tuple(their_reads), tuple(weights), kind, *sizes
        ))  # fmt: skip
    return found


def _alike(ours: list[onnx.NodeProto], theirs: list[onnx.NodeProto]) -> bool:
    def plain(node: onnx.NodeProto) -> bytes:
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        bare.ClearField("name")
        return bytes(bare.SerializeToString(deterministic=True))

    return len(ours) == len(theirs) and all(plain(a) == plain(b) for a, b in zip(ours, theirs, strict=True))


def _types(graph: Graph) -> dict[str, int]:
    """Element type of every value that shape inference reaches, and of every output."""
    inferred = onnx.shape_inference.infer_shapes(graph.proto).graph
    return {one.name: one.type.tensor_type.elem_type for one in (*inferred.value_info, *inferred.output)}


def alone(artifact: Graph, piece: Piece, types: Mapping[str, int]) -> onnx.ModelProto:
    """A model of the piece alone: from what it reads to its value. `types`: value -> ONNX element type.

    Tensors that stand in the artifact's data file stay there."""
    return _part(artifact, piece.value, piece.nodes, piece.reads, types)


def original(reference: Graph, piece: Piece, types: Mapping[str, int]) -> onnx.ModelProto:
    """The same of the reference's own nodes for the piece's value."""
    return _part(reference, piece.value, piece.original, piece.original_reads, types)


def _part(
    graph: Graph, value: str, nodes: Sequence[onnx.NodeProto], reads: Sequence[str], types: Mapping[str, int]
) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(head(graph.proto))
    model.graph.name = "piece"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(graph.tensors[name] for name in graph.stored(nodes))
    model.graph.input.extend(_untyped(name, types[name]) for name in reads)
    model.graph.output.append(onnx.ValueInfoProto(name=value))
    return model


def telling(reference: Graph, values: Iterable[str]) -> onnx.ModelProto:
    """The reference with `values`, and nothing else, for its outputs. The large tensors stay where they are."""
    model = onnx.ModelProto()
    model.CopyFrom(reference.proto)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in sorted({*values}))
    return model


def stored_value(graph: Graph, value: str) -> Any:
    """The array of a stored tensor, or of what is computed from stored tensors alone; None for what an input decides.

    Raises `StageError` when it cannot be read."""
    if value in graph.tensors:
        return array_of(graph.tensors[value], graph.path.parent)
    nodes, reads = graph.before(value, ())
    if reads or not nodes:
        return None
    model = _part(graph, value, nodes, reads, {})
    return Session(model.SerializeToString(), sparing=True, data=graph.path.parent).run({})[0]


def rows_of(reference: Graph, piece: Piece) -> int:
    """How many rows the table has that the piece looks the ids of an input up in; 0 for a piece that is no lookup."""
    if any(name not in reference.inputs for name in (*piece.reads, *piece.original_reads)):
        return 0
    for node in piece.original:
        if node.op_type == "Gather" and node.input[0] in reference.tensors and node.input[1] in reference.inputs:
            return int(reference.tensors[node.input[0]].dims[0])
    return 0


def switchable(reference: Graph, found: Iterable[Piece]) -> onnx.ModelProto:
    """The reference with every piece's value, and all that pieces read, among its outputs.

    For each piece's value v there are two more inputs: with `v/chosen` true, what is fed as `v/given` goes on in its
    place. The large tensors stay where they are.
    """
    found, types = list(found), _types(reference)
    model = onnx.ModelProto()
    model.CopyFrom(reference.proto)
    graph, chosen = model.graph, {piece.value for piece in found}
    declared = {one.name for one in graph.output}
    for node in graph.node:
        node.input[:] = [name + AFTER if name in chosen else name for name in node.input]
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for name in (name for name in node.output if name in chosen):
            inputs = [name + CHOSEN, name + GIVEN, name]
            nodes.append(helper.make_node("Where", inputs, [name + AFTER], name=f"{name}/switch"))
    del graph.node[:]
    graph.node.extend(nodes)
    for name in sorted(chosen):
        graph.input.extend([_untyped(name + CHOSEN, onnx.TensorProto.BOOL), _untyped(name + GIVEN, types[name])])
    for output in graph.output:
        if output.name in chosen:
            output.name += AFTER
    read = {name for piece in found for name in piece.reads if name not in reference.inputs}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted((read - declared) | chosen))
    return model


def _untyped(name: str, element: int) -> onnx.ValueInfoProto:
    """An input of any shape."""
    info = onnx.ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = element
    return info


def head(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model without a graph, of the same versions and functions."""
    head = onnx.ModelProto(ir_version=proto.ir_version)
    head.opset_import.extend(proto.opset_import)
    head.functions.extend(proto.functions)
    return head


def types_of(graph: Graph) -> dict[str, Any]:
    """Value, or input -> ONNX element type."""
    return {**_types(graph), **{name: one.type.tensor_type.elem_type for name, one in graph.inputs.items()}}
