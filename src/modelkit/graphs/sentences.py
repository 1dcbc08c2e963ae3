"""From the hidden states of an encoder to one vector for a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from modelkit.graphs.tape import Drawn, Tape, output, typed


def token_inputs(*names: str) -> dict[str, ir.Value]:
    """Graph inputs that hold one integer per token: int64[batch, sequence]."""
    return {name: typed(name, "int64", ["batch", "sequence"]) for name in names}


def vectors(tape: Tape, inputs: Mapping[str, ir.Value], hidden: ir.Value, width: int, text: Any) -> Drawn:
    """The outputs of feature-extraction: last_hidden_state, and sentence_embedding after `text.pooling` and
    `text.normalize` (the options of that task)."""
    vector = unit(tape, _pooled(tape, hidden, inputs["attention_mask"], text.pooling), text.normalize)
    outputs = (
        output(hidden, "last_hidden_state", ["batch", "sequence", width]),
        output(vector, "sentence_embedding", ["batch", width]),
    )
    return Drawn(tuple(inputs.values()), outputs)


def unit(tape: Tape, pooled: ir.Value, normalize: bool = True, name: str = "pooling") -> ir.Value:
    """float32[batch, width] -> rows of length one, as sentence-transformers' Normalize."""
    if not normalize:
        return pooled
    length = tape.node(f"{name}/length", "ReduceL2", pooled, tape.ints(-1), keepdims=1)
    length = tape.node(f"{name}/length/floored", "Max", length, tape.constant(1e-12, np.float32))
    return tape.node(f"{name}/unit", "Div", pooled, length)


def _pooled(tape: Tape, hidden: ir.Value, mask: ir.Value, pooling: str) -> ir.Value:
    """float32[batch, sequence, width] -> float32[batch, width], as sentence-transformers' Pooling.

    `mean` averages over the positions of the mask, `cls` takes the first position.
    """
    if pooling == "cls":
        return tape.node("pooling/first", "Gather", hidden, tape.constant(0, np.int64), axis=1)
    share = tape.node("pooling/mask", "Cast", mask, to=ir.DataType.FLOAT)
    share = tape.node("pooling/weights", "Unsqueeze", share, tape.ints(-1))
    total = tape.node(
        "pooling/sum", "ReduceSum", tape.node("pooling/kept", "Mul", hidden, share), tape.ints(1), keepdims=0
    )
    count = tape.node("pooling/count", "ReduceSum", share, tape.ints(1), keepdims=0)
    # The floors are those of sentence-transformers: an empty mask or a zero vector must not divide by zero.
    count = tape.node("pooling/count/floored", "Max", count, tape.constant(1e-9, np.float32))
    return tape.node("pooling/mean", "Div", total, count)
