"""The layer of GPT-2, ViT and CLIP: attention and a feed-forward net, each on a normalised copy of what it adds to."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from modelkit.graphs import encoders
from modelkit.graphs.blocks import LOWEST, Blocks
from modelkit.graphs.tape import Tape

Activation: TypeAlias = Literal["quick_gelu", "gelu", "gelu_new", "relu"]
STEEPNESS = 1.702
"""Of the sigmoid in QuickGELU (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2)."""


def layer(blocks: Blocks, hidden: ir.Value, bias: ir.Value, name: str, config: Any) -> ir.Value:
    """float32[batch, sequence, hidden_size] -> the same; `bias` is added to the scores of attention.

    Tensors are called as in `CLIPEncoderLayer`.
    """
    width, epsilon = config.hidden_size, config.layer_norm_eps
    calm = blocks.layer_norm(hidden, f"{name}.layer_norm1", width, epsilon)
    query, key, value = (blocks.linear(calm, f"{name}.self_attn.{part}_proj", width, width) for part in "qkv")
    mixed = blocks.attention(f"{name}.self_attn", query, key, value, bias, config.num_attention_heads, width)
    mixed = blocks.linear(mixed, f"{name}.self_attn.out_proj", width, width)
    attended = blocks.tape.node(f"{name}.self_attn.residual", "Add", hidden, mixed)
    calm = blocks.layer_norm(attended, f"{name}.layer_norm2", width, epsilon)
    inner = blocks.linear(calm, f"{name}.mlp.fc1", width, config.intermediate_size)
    inner = activation(blocks, inner, f"{name}.mlp.activation", config.hidden_act)
    outer = blocks.linear(inner, f"{name}.mlp.fc2", config.intermediate_size, width)
    return blocks.tape.node(f"{name}.mlp.residual", "Add", attended, outer)


def activation(blocks: Blocks, x: ir.Value, name: str, kind: Activation) -> ir.Value:
    """The activation that config.json calls `kind`."""
    if kind != "quick_gelu":
        return encoders.activation(blocks, x, name, kind)
    tape = blocks.tape
    steep = tape.node(f"{name}/steep", "Mul", x, tape.constant(STEEPNESS, np.float32))
    return tape.node(name, "Mul", x, tape.node(f"{name}/share", "Sigmoid", steep))


def causal_bias(tape: Tape, mask: ir.Value) -> ir.Value:
    """int64[batch, sequence] of ones and zeros -> float32[batch, 1, sequence, sequence].

    0 where the position of the third axis may look at that of the fourth: it is in the mask and does not come later.
    """
    length = tape.node("mask/length", "Shape", mask, start=1, end=2)
    scalar = tape.node("mask/length/scalar", "Squeeze", length)
    places = tape.node("mask/places", "Range", tape.constant(0, np.int64), scalar, tape.constant(1, np.int64))
    rows = tape.node("mask/rows", "Unsqueeze", places, tape.ints(1))
    reached = tape.node("mask/reached", "GreaterOrEqual", rows, places)
    kept = tape.node("mask/kept", "Cast", mask, to=ir.DataType.BOOL)
    kept = tape.node("mask/kept/per_head", "Unsqueeze", kept, tape.ints(1, 2))
    seen = tape.node("mask/seen", "And", kept, reached)
    return tape.node(
        "mask/causal_bias", "Where", seen, tape.constant(0.0, np.float32), tape.constant(LOWEST, np.float32)
    )  # fmt: skip
