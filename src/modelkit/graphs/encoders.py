"""The layer of BERT and its descendants: self-attention and a feed-forward net, each normalised after its sum."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs.blocks import Blocks

Activation: TypeAlias = Literal["gelu", "gelu_new", "relu"]


def refuse_odd_heads(width: int, heads: int) -> None:
    """Raise `StageError` when the heads do not divide the width."""
    if heads < 1 or width % heads:
        raise StageError(
            f"config.json: hidden_size {width} does not divide into {heads} heads",
            hint="correct config.json; fetch the source again",
        )


def first_type(blocks: Blocks, types: int, width: int) -> ir.Value:
    """float32[width]: what a model that is never given token types adds to every token."""
    table = blocks.table("embeddings.token_type_embeddings", types, width)
    return blocks.tape.node("embeddings/types", "Gather", table, blocks.tape.constant(0, np.int64))


def layer(blocks: Blocks, hidden: ir.Value, bias: ir.Value, name: str, config: Any) -> ir.Value:
    """float32[batch, sequence, hidden_size] -> the same; `bias` is `Blocks.attention_bias`."""
    width, epsilon = config.hidden_size, config.layer_norm_eps
    query, key, value = (
        blocks.linear(hidden, f"{name}.attention.self.{part}", width, width) for part in ("query", "key", "value")
    )
    mixed = blocks.attention(f"{name}.attention.self", query, key, value, bias, config.num_attention_heads, width)
    attended = blocks.linear(mixed, f"{name}.attention.output.dense", width, width)
    attended = blocks.tape.node(f"{name}.attention.residual", "Add", attended, hidden)
    attended = blocks.layer_norm(attended, f"{name}.attention.output.LayerNorm", width, epsilon)
    return feed_forward(blocks, attended, name, config)


def feed_forward(blocks: Blocks, attended: ir.Value, name: str, config: Any) -> ir.Value:
    """The second half of a layer."""
    width = config.hidden_size
    inner = blocks.linear(attended, f"{name}.intermediate.dense", width, config.intermediate_size)
    inner = activation(blocks, inner, f"{name}.intermediate.activation", config.hidden_act)
    outer = blocks.linear(inner, f"{name}.output.dense", config.intermediate_size, width)
    outer = blocks.tape.node(f"{name}.output.residual", "Add", outer, attended)
    return blocks.layer_norm(outer, f"{name}.output.LayerNorm", width, config.layer_norm_eps)


def activation(blocks: Blocks, x: ir.Value, name: str, kind: Activation) -> ir.Value:
    """The activation that config.json calls `kind`."""
    if kind == "relu":
        return blocks.tape.node(name, "Relu", x)
    # `gelu_new` is the tanh approximation of Gelu, `gelu` the exact one.
    return blocks.tape.node(name, "Gelu", x, approximate="tanh" if kind == "gelu_new" else "none")
