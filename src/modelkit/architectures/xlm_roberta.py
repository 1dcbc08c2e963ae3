"""XLM-RoBERTa encoders (Conneau et al. 2019, arXiv:1911.02116): BERT's layers, positions counted past the padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs.blocks import Blocks
    from modelkit.graphs.tape import Drawn, Tape

PREFIXES = ("", "roberta.")
IDLE = ("*pooler.*", "*position_ids", "lm_head.*", "classifier.*")
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
    type_vocab_size: int = 1
    pad_token_id: int = 1
    layer_norm_eps: float = 1e-5
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False

    @property
    def positions(self) -> int:
        """How long a text can be: the rows up to the padding's own are never a token's position."""
        return self.max_position_embeddings - self.pad_token_id - 1


def draw_vectors(blocks: Blocks, config: Options, task: Any) -> Drawn:
    """Record the encoder, with the pooling that `task.text` asks for."""
    from modelkit.graphs import encoders, sentences  # noqa: PLC0415

    encoders.refuse_odd_heads(config.hidden_size, config.num_attention_heads)
    inputs = sentences.token_inputs("input_ids", "attention_mask")
    bias = blocks.attention_bias(inputs["attention_mask"])
    hidden = _embed(blocks, inputs["input_ids"], config)
    for number in range(config.num_hidden_layers):
        hidden = encoders.layer(blocks, hidden, bias, f"encoder.layer.{number}", config)
    return sentences.vectors(blocks.tape, inputs, hidden, config.hidden_size, task.text)


PARTS = {"feature-extraction": {WHOLE: draw_vectors}}
"""Task -> part -> what records its graph."""


def _embed(blocks: Blocks, ids: ir.Value, config: Options) -> ir.Value:
    from modelkit.graphs.encoders import first_type  # noqa: PLC0415

    tape, width = blocks.tape, config.hidden_size
    words = blocks.table("embeddings.word_embeddings", config.vocab_size, width)
    positions = blocks.table("embeddings.position_embeddings", config.max_position_embeddings, width)
    parts = (
        tape.node("embeddings/words", "Gather", words, ids),
        first_type(blocks, config.type_vocab_size, width),
        tape.node("embeddings/positions", "Gather", positions, _positions(tape, ids, config.pad_token_id)),
    )
    tokens = tape.node("embeddings/tokens", "Add", parts[0], parts[1])
    placed = tape.node("embeddings/placed", "Add", tokens, parts[2])
    return blocks.layer_norm(placed, "embeddings.LayerNorm", width, config.layer_norm_eps)


def _positions(tape: Tape, ids: ir.Value, pad: int) -> ir.Value:
    """int64[batch, sequence]: the running count of tokens after the padding's own row, and that row for padding.

    So transformers' `create_position_ids_from_input_ids`: what counts is the id of a token, not its mask.
    """
    import numpy as np  # noqa: PLC0415
    import onnx_ir as ir  # noqa: PLC0415

    row = tape.constant(pad, np.int64)
    padding = tape.node("positions/padding", "Equal", ids, row)
    tokens = tape.node("positions/tokens", "Cast", tape.node("positions/kept", "Not", padding), to=ir.DataType.INT64)
    count = tape.node("positions/count", "CumSum", tokens, tape.constant(1, np.int64))
    counted = tape.node("positions/counted", "Mul", count, tokens)
    return tape.node("positions/rows", "Add", counted, row)
