"""The layer of GPT-2, ViT and CLIP: attention and a feed-forward net, each on a normalised copy of what it adds to."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from modelkit.graphs import encoders
from modelkit.graphs.blocks import Blocks

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
