"""BERT encoders (Devlin et al. 2018, arXiv:1810.04805), post-layer-norm, absolute positions: `model_type: bert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from modelkit.errors import StageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs.blocks import Blocks

PREFIXES = ("", "bert.")
IDLE = ("*pooler.*", "*position_ids", "cls.*", "classifier.*")
"""Tensors that an encoder does not need: heads, and a buffer that old versions of transformers saved."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Options:
    """What is read of config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False


def build(blocks: Blocks, inputs: dict[str, ir.Value], config: Options) -> ir.Value:
    """Record the encoder; returns last_hidden_state, float32[batch, sequence, hidden_size].

    Raises `StageError` when the heads do not divide the width.
    """
    if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        raise StageError(
            f"config.json: hidden_size {config.hidden_size} does not divide into {config.num_attention_heads} heads",
            hint="correct config.json; fetch the source again",
        )
    bias = blocks.attention_bias(inputs["attention_mask"])
    hidden = _embed(blocks, inputs, config)
    for number in range(config.num_hidden_layers):
        hidden = _layer(blocks, hidden, bias, f"encoder.layer.{number}", config)
    return hidden


def _embed(blocks: Blocks, inputs: dict[str, ir.Value], config: Options) -> ir.Value:
    tape, width = blocks.tape, config.hidden_size
    words = blocks.table("embeddings.word_embeddings", config.vocab_size, width)
    types = blocks.table("embeddings.token_type_embeddings", config.type_vocab_size, width)
    positions = blocks.table("embeddings.position_embeddings", config.max_position_embeddings, width)
    length = tape.node("embeddings/length", "Shape", inputs["input_ids"], start=1, end=2)
    parts = (
        tape.node("embeddings/words", "Gather", words, inputs["input_ids"]),
        tape.node("embeddings/types", "Gather", types, inputs["token_type_ids"]),
        tape.node("embeddings/positions", "Slice", positions, tape.ints(0), length),
    )
    tokens = tape.node("embeddings/tokens", "Add", parts[0], parts[1])
    placed = tape.node("embeddings/placed", "Add", tokens, parts[2])
    return blocks.layer_norm(placed, "embeddings.LayerNorm", width, config.layer_norm_eps)


def _layer(blocks: Blocks, hidden: ir.Value, bias: ir.Value, name: str, config: Options) -> ir.Value:
    width, epsilon = config.hidden_size, config.layer_norm_eps
    query, key, value = (
        blocks.linear(hidden, f"{name}.attention.self.{part}", width, width) for part in ("query", "key", "value")
    )
    mixed = blocks.attention(f"{name}.attention.self", query, key, value, bias, config.num_attention_heads, width)
    attended = blocks.linear(mixed, f"{name}.attention.output.dense", width, width)
    attended = blocks.tape.node(f"{name}.attention.residual", "Add", attended, hidden)
    attended = blocks.layer_norm(attended, f"{name}.attention.output.LayerNorm", width, epsilon)
    inner = blocks.linear(attended, f"{name}.intermediate.dense", width, config.intermediate_size)
    inner = _activation(blocks, inner, f"{name}.intermediate.activation", config.hidden_act)
    outer = blocks.linear(inner, f"{name}.output.dense", config.intermediate_size, width)
    outer = blocks.tape.node(f"{name}.output.residual", "Add", outer, attended)
    return blocks.layer_norm(outer, f"{name}.output.LayerNorm", width, epsilon)


def _activation(blocks: Blocks, x: ir.Value, name: str, kind: str) -> ir.Value:
    if kind == "relu":
        return blocks.tape.node(name, "Relu", x)
    # `gelu_new` is the tanh approximation of Gelu, `gelu` the exact one.
    return blocks.tape.node(name, "Gelu", x, approximate="tanh" if kind == "gelu_new" else "none")
