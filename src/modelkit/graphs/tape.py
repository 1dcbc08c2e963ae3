"""A recorder of nodes in which everything has a stable, readable name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from modelkit.graphs.files import TensorFile

OPSET = 20
"""First opset with Gelu; onnxruntime >= 1.17 and onnxruntime-web >= 1.17 run it."""
IR_VERSION = 9
"""The IR version released with opset 20, https://github.com/onnx/onnx/blob/main/docs/Versioning.md."""


class Tape(ir.tape.Tape):
    """Nodes and initializers of one graph (or of a piece that replaces some nodes of one)."""

    def __init__(self, tensors: TensorFile, constants: str = "constant") -> None:
        """`constants` begins the names of this tape's constants; a piece of a graph needs its own."""
        super().__init__()
        self._tensors, self._constants = tensors, constants
        self._shared: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._outer: Tape | None = None

    def inner(self) -> Tape:
        """A tape for the body of an `If`: the nodes are its own, what it stores belongs to the graph around it."""
        body = Tape(self._tensors, self._constants)
        body._shared, body._outer = self._shared, self
        return body

    def node(self, name: str, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """One node with one output; node and output are both called `name`."""
        value = self.op(op_type, inputs, attributes, name=name)
        value.name = name
        return value

    def weight(self, name: str, array: Any) -> ir.Value:
        """A stored tensor under its own name."""
        if self._outer:
            return self._outer.weight(name, array)
        return self.initializer(self._tensors.add(name, np.ascontiguousarray(array).reshape(np.shape(array))))

    def constant(self, value: Any, dtype: type[np.generic]) -> ir.Value:
        """A small constant; equal ones are stored once."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            text = "x".join(map(str, array.reshape(-1).tolist())).replace("-", "minus ").replace(" ", "")
            name = f"{self._constants}/{array.dtype.name}{'' if array.ndim == 0 else list(array.shape)}/{text}".replace(
                " ", ""
            )
            self._shared[key] = self.weight(name, array)
        return self._shared[key]

    def ints(self, *values: int) -> ir.Value:
        """A 1-d int64 constant, as shapes and axes are given."""
        return self.constant(values, np.int64)


class Piece(Tape):
    """Nodes that go into a graph that is there already: a name that is taken gets a number."""

    def __init__(self, tensors: TensorFile, constants: str, names: set[str]) -> None:
        """`names` are those that are taken; it grows by those given out here."""
        super().__init__(tensors, constants)
        self._names = names

    def inner(self) -> Piece:
        """A tape for the body of a node, with the same names taken."""
        body = Piece(self._tensors, self._constants, self._names)
        body._shared, body._outer = self._shared, self
        return body

    def node(self, name: str, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """One node, under a name that is free."""
        return super().node(self._free(name), op_type, *inputs, **attributes)

    def weight(self, name: str, array: Any) -> ir.Value:
        """A stored tensor, under a name that is free; one of a body gets its name in the graph around it."""
        return super().weight(name if self._outer else self._free(name), array)

    def _free(self, name: str) -> str:
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}/{number}"
        self._names.add(found)
        return found


@dataclass(frozen=True)
class Drawn:
    """The ends of a recorded graph, named and typed, in order."""

    inputs: Sequence[ir.Value]
    outputs: Sequence[ir.Value]


def model_of(tape: Tape, name: str, drawn: Drawn) -> ir.Model:
    """The recorded nodes as a whole model."""
    graph = ir.Graph(
        drawn.inputs,
        drawn.outputs,
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": OPSET},
        name=name,
    )
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="modelkit")


def typed(name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
    """A graph input: `dtype` as in a manifest (`int64`), named axes as strings."""
    return ir.val(name, dtype=element_type(dtype), shape=ir.Shape(shape))


def output(value: ir.Value, name: str, shape: Sequence[int | str], dtype: str = "float32") -> ir.Value:
    """`value` as a graph output; named axes as strings."""
    value.name, value.dtype, value.shape = name, element_type(dtype), ir.Shape(shape)
    return value


def element_type(dtype: str) -> ir.DataType:
    """`float32` -> ONNX FLOAT and so on."""
    return ir.DataType.from_numpy(np.dtype(dtype))
