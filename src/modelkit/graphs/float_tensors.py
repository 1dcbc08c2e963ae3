"""What a scheme left as it was: large stored tensors that are still float32."""

from __future__ import annotations

import onnx_ir as ir

LARGE = 64 * 1024
"""Bytes from which a tensor is worth a word; smaller tables and all biases are meant to stay."""


def left_in_float32(model: ir.Model, large: int = LARGE) -> list[tuple[str, int, str]]:
    """Name, bytes and readers of every float32 tensor of `large` bytes or more stored anywhere in `model`.

    Largest first. Read after a scheme, it tells what that scheme has no rule for.
    """
    found = [
        (str(value.name), value.const_value.nbytes, _readers(value))
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT and value.const_value.nbytes >= large
    ]
    return sorted(found, key=lambda row: (-row[1], row[0]))


def _readers(value: ir.Value) -> str:
    uses = [f"{use.node.op_type} '{use.node.name}' as input {use.idx}" for use in value.uses()]
    return f"read by {', '.join(uses)}" if uses else "read by nothing"
