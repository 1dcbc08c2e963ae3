"""Graphs that another exporter traced, made like ours: no traces of the machine, our axis names, the order declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from modelkit.graphs import sentences
from modelkit.graphs.files import TensorFile, load
from modelkit.graphs.tape import Tape
from modelkit.vocabulary import Signature, TensorSpec

AXES = {"batch_size": "batch", "text_batch_size": "batch", "image_batch_size": "batch", "1": "decoder_sequence"}
"""Names that say less than ours, or something else: a decoder that was traced with one token calls its axis `1`."""


def read(folder: Path) -> ir.Model:
    """The model in `folder`, its tensors still on disk, without doc strings, metadata and the shapes inside it."""
    model = load(folder)
    # Ours have no Constant nodes: what is stored is an initializer, whoever rewrites the graph later.
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    model.doc_string = None
    model.metadata_props.clear()
    for graph in (model.graph, *(one for one in model.graphs() if one is not model.graph)):
        graph.doc_string = None
        graph.metadata_props.clear()
        outputs = set(graph.outputs)
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                value.doc_string = None
                value.metadata_props.clear()
                if value not in outputs:
                    # They repeat axis names that are about to change; a runtime infers its own.
                    value.shape = value.type = None
    return model


def keep(model: ir.Model, outputs: Sequence[str]) -> None:
    """Leave of the graph what leads to `outputs`, and of its inputs those that are read on the way."""
    graph = model.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name in outputs]
    RemoveUnusedNodesPass()(model)
    graph.inputs[:] = [value for value in graph.inputs if value.uses()]


def rename_axes(model: ir.Model) -> None:
    """`batch_size` is `batch`, `x_length` is `x`, and `past_x_length + x_length` is `total_x` where there is a past."""
    ends = [value for value in (*model.graph.inputs, *model.graph.outputs) if value.shape is not None]
    pasts = {str(axis) for value in model.graph.inputs for axis in value.shape or () if str(axis).startswith("past_")}
    for value in ends:
        value.shape = ir.Shape([axis if isinstance(axis, int) else _axis(str(axis.value), pasts)
                                for axis in value.shape or ()])  # fmt: skip


def _axis(name: str, pasts: set[str]) -> str:
    past, plus, present = name.partition(" + ")
    axis = (present or past).removesuffix("_length")
    return f"total_{axis}" if plus and past in pasts else AXES.get(name, axis)


def declare(model: ir.Model, signature: Signature) -> None:
    """Order inputs and outputs as `signature` has them, and give the lengths and names it has to axes that are open.

    A graph with other inputs or outputs is left as it is: the signature check says what differs.
    """
    for values, specs in ((model.graph.inputs, signature.inputs), (model.graph.outputs, signature.outputs)):
        found = {value.name: value for value in values}
        if found.keys() == {spec.name for spec in specs}:
            for spec in specs:
                _close(found[spec.name], spec)
            values[:] = [found[spec.name] for spec in specs]


def _close(value: ir.Value, spec: TensorSpec) -> None:
    if value.shape is not None and len(value.shape) == len(spec.shape):
        pairs = zip(value.shape, spec.shape, strict=True)
        value.shape = ir.Shape([axis if isinstance(axis, int) else declared for axis, declared in pairs])


def add_vectors(model: ir.Model, tensors: TensorFile, text: object) -> None:
    """Put `sentence_embedding` behind `last_hidden_state`, pooled and normalised as the task's options `text` ask."""
    graph = model.graph
    hidden = next(value for value in graph.outputs if value.name == "last_hidden_state")
    inputs: Mapping[str, ir.Value] = {str(value.name): value for value in graph.inputs}
    tape = Tape(tensors, "pooling/constant")
    assert hidden.shape is not None
    drawn = sentences.vectors(tape, inputs, hidden, int(hidden.shape[-1]), text)  # type: ignore[arg-type]
    for initializer in tape.initializers:
        graph.register_initializer(initializer)
    graph.extend(tape.nodes)
    graph.outputs[:] = drawn.outputs
