"""What in a graph multiplies with a stored float32 matrix, and what looks rows up in one."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs.integers import LARGEST, Floats


@dataclass(frozen=True)
class Factor:
    """The stored operand of a product."""

    stored: ir.Value
    turned: bool
    """It is multiplied through a Transpose, as a tied head is."""

    def array(self) -> Floats:
        """float32[inner, outer]. Raises `StageError` when it holds what no scale reaches."""
        array = stored_array(self.stored)
        return array.T if self.turned else array


def factor_of(node: ir.Node) -> Factor | None:
    """Of a MatMul with a stored matrix on its right."""
    if node.op_type != "MatMul" or (right := node.inputs[1]) is None:
        return None
    if is_stored(right):
        return Factor(right, turned=False)
    turn = right.producer()
    if turn is None or turn.op_type != "Transpose" or not is_stored(turn.inputs[0]):
        return None
    perm = turn.attributes.get("perm")
    swaps = perm is None or list(perm.as_ints()) == [1, 0]
    return Factor(turn.inputs[0], turned=True) if swaps else None  # type: ignore[arg-type]


def table_of(node: ir.Node) -> ir.Value | None:
    """The stored table of a lookup along its rows."""
    looks_up = node.op_type in ("Gather", "Slice") and is_stored(node.inputs[0]) and _along_rows(node)
    return node.inputs[0] if looks_up else None


def _along_rows(node: ir.Node) -> bool:
    if node.op_type == "Gather":
        axis = node.attributes.get("axis")
        return axis is None or axis.as_int() in (0, -2)
    axes = node.inputs[3] if len(node.inputs) > 3 else None
    return axes is None or (axes.const_value is not None and axes.const_value.numpy().tolist() == [0])


def is_multiplied(table: ir.Value | None) -> bool:
    """Whether a head is tied to the table."""
    turns = [use.node for use in table.uses() if use.node.op_type == "Transpose"] if table else []
    return any(factor_of(use.node) for turn in turns for use in turn.outputs[0].uses())


def is_stored(value: ir.Value | None) -> bool:
    """Whether it is a float32 matrix with known numbers."""
    return (
        value is not None
        and value.const_value is not None
        and value.dtype == ir.DataType.FLOAT
        and len(value.const_value.shape) == 2
    )


def stored_array(stored: ir.Value) -> Floats:
    """The stored float32 array. Raises `StageError` when it holds what no scale reaches."""
    array: Floats = stored.const_value.numpy()  # type: ignore[union-attr]
    _refuse_unstorable(str(stored.name), array)
    return array


def _refuse_unstorable(name: str, array: Floats) -> None:
    """A NaN or a huge value would become a scale that is none, and silently spoil its whole column."""
    if not max(array.max(), -array.min()) <= LARGEST:
        raise StageError(
            f"tensor '{name}' holds NaN or values beyond {LARGEST:,}, which no float16 scale reaches",
            hint="the scheme fp32 takes large values as they are",
        )
