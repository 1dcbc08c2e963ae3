"""BERT encoders (Devlin et al. 2018, arXiv:1810.04805), post-layer-norm, absolute positions: `model_type: bert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs.blocks import Blocks
    from modelkit.graphs.tape import Drawn

PREFIXES = ("", "bert.")
IDLE = ("*pooler.*", "*position_ids", "cls.*", "classifier.*")
"""Tensors that an encoder does not need: heads, and a buffer that old versions of transformers saved."""


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


def draw_vectors(blocks: Blocks, config: Options, task: Any) -> Drawn:
    """Record the encoder, with the pooling that `task.text` asks for."""
    from modelkit.graphs import encoders, sentences  # noqa: PLC0415

    encoders.refuse_odd_heads(config.hidden_size, config.num_attention_heads)
    inputs = sentences.token_inputs("input_ids", "attention_mask", "token_type_ids")
    bias = blocks.attention_bias(inputs["attention_mask"])
    hidden = _embed(blocks, inputs, config)
    for number in range(config.num_hidden_layers):
        hidden = encoders.layer(blocks, hidden, bias, f"encoder.layer.{number}", config)
    return sentences.vectors(blocks.tape, inputs, hidden, config.hidden_size, task.text)


PARTS = {"feature-extraction": {WHOLE: draw_vectors}}
"""Task -> part -> what records its graph."""


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
