"""GTE encoders of the mGTE paper (arXiv:2407.19669), `model_type: new`: rotary positions and gated feed-forward nets.

The hub serves them with code of their own (Alibaba-NLP/new-impl); none of it is needed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelkit.errors import StageError
from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs.blocks import Blocks
    from modelkit.graphs.rotary import Rotation
    from modelkit.graphs.tape import Drawn, Tape

PREFIXES = ("", "new.")
IDLE = ("*pooler.*", "*position_ids", "*rotary_emb.*", "lm_head.*", "classifier.*")
"""Tensors that an encoder does not need: heads (gte-multilingual-base has one that weighs tokens), and buffers."""


@dataclass(frozen=True)
class RopeScaling:
    """How rotary positions are stretched; `mixed_b` chooses mixed NTK scaling."""

    type: Literal["ntk"]
    factor: float
    mixed_b: float | None = None


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
    layer_norm_eps: float = 1e-12
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    position_embedding_type: Literal["rope"] = "rope"
    layer_norm_type: Literal["layer_norm"] = "layer_norm"
    pack_qkv: Literal[True] = True
    logn_attention_scale: Literal[False] = False


def draw_vectors(blocks: Blocks, config: Options, task: Any) -> Drawn:
    """Record the encoder, with the pooling that `task.text` asks for."""
    from modelkit.graphs import encoders, rotary, sentences  # noqa: PLC0415

    encoders.refuse_odd_heads(config.hidden_size, config.num_attention_heads)
    head = _head(config)
    # With one token type or none there is nothing that a caller could tell.
    names = ("input_ids", "attention_mask", "token_type_ids")[: 3 if config.type_vocab_size > 1 else 2]
    inputs = sentences.token_inputs(*names)
    bias = blocks.attention_bias(inputs["attention_mask"])
    stretch = config.rope_scaling
    turns = (
        rotary.slowed_frequencies(config.rope_theta, head, stretch)
        if stretch
        else rotary.plain_frequencies(config.rope_theta, head)
    )
    by = rotary.rotation(blocks.tape, rotary.places(blocks.tape, inputs["input_ids"]), turns, heads_axis=2)
    hidden = _embed(blocks, inputs, config)
    for number in range(config.num_hidden_layers):
        hidden = _layer(blocks, hidden, bias, by, f"encoder.layer.{number}", config)
    return sentences.vectors(blocks.tape, inputs, hidden, config.hidden_size, task.text)


PARTS = {"feature-extraction": {WHOLE: draw_vectors}}
"""Task -> part -> what records its graph."""


def _head(config: Options) -> int:
    """How many features a head has: an even number, for they turn in pairs."""
    head = config.hidden_size // config.num_attention_heads
    if head % 2:
        raise StageError(
            f"config.json: heads of {head} features have no pairs to turn by their position",
            hint="correct hidden_size and num_attention_heads; fetch the source again",
        )
    return head


def _embed(blocks: Blocks, inputs: dict[str, ir.Value], config: Options) -> ir.Value:
    tape, width = blocks.tape, config.hidden_size
    words = blocks.table("embeddings.word_embeddings", config.vocab_size, width)
    hidden = tape.node("embeddings/words", "Gather", words, inputs["input_ids"])
    if config.type_vocab_size:
        hidden = tape.node("embeddings/tokens", "Add", hidden, _types(blocks, inputs, config))
    return blocks.layer_norm(hidden, "embeddings.LayerNorm", width, config.layer_norm_eps)


def _types(blocks: Blocks, inputs: dict[str, ir.Value], config: Options) -> ir.Value:
    from modelkit.graphs.encoders import first_type  # noqa: PLC0415

    if "token_type_ids" not in inputs:
        return first_type(blocks, config.type_vocab_size, config.hidden_size)
    table = blocks.table("embeddings.token_type_embeddings", config.type_vocab_size, config.hidden_size)
    return blocks.tape.node("embeddings/types", "Gather", table, inputs["token_type_ids"])


def _layer(blocks: Blocks, hidden: ir.Value, bias: ir.Value, by: Rotation, name: str, config: Options) -> ir.Value:
    tape, width, epsilon = blocks.tape, config.hidden_size, config.layer_norm_eps
    attended = _attention(blocks, hidden, bias, by, f"{name}.attention", config)
    attended = tape.node(f"{name}.attention.residual", "Add", attended, hidden)
    attended = blocks.layer_norm(attended, f"{name}.attn_ln", width, epsilon)
    outer = _gated(blocks, attended, f"{name}.mlp", config)
    outer = tape.node(f"{name}.mlp.residual", "Add", outer, attended)
    return blocks.layer_norm(outer, f"{name}.mlp_ln", width, epsilon)


def _attention(blocks: Blocks, hidden: ir.Value, bias: ir.Value, by: Rotation, name: str, config: Options) -> ir.Value:
    tape, width, heads = blocks.tape, config.hidden_size, config.num_attention_heads
    packed = blocks.linear(hidden, f"{name}.qkv_proj", width, 3 * width)
    query, key, value = (_share(blocks, packed, f"{name}.{part}", n, width) for n, part in enumerate("qkv"))
    query, key = (_turned(tape, x, f"{name}.{part}", heads, width, by) for x, part in ((query, "q"), (key, "k")))
    mixed = blocks.attention(name, query, key, value, bias, heads, width)
    return blocks.linear(mixed, f"{name}.o_proj", width, width)


def _turned(tape: Tape, x: ir.Value, name: str, heads: int, width: int, by: Rotation) -> ir.Value:
    """float32[batch, sequence, width] -> the same with the pairs of each head turned."""
    from modelkit.graphs import rotary  # noqa: PLC0415

    by_head = tape.node(f"{name}/by_head", "Reshape", x, tape.ints(0, 0, heads, width // heads))
    turned = rotary.turned(tape, name, by_head, by, width // heads)
    return tape.node(f"{name}/rotated", "Reshape", turned, tape.ints(0, 0, width))


def _gated(blocks: Blocks, x: ir.Value, name: str, config: Options) -> ir.Value:
    """GEGLU (Shazeer 2020, arXiv:2002.05202) with both factors in one matrix without bias, the ungated one first."""
    from modelkit.graphs.encoders import activation  # noqa: PLC0415

    width, inner = config.hidden_size, config.intermediate_size
    packed = blocks.linear(x, f"{name}.up_gate_proj", width, 2 * inner, bias=False)
    up, gate = (_share(blocks, packed, f"{name}.{part}", n, inner) for n, part in enumerate(("up", "gate")))
    gate = activation(blocks, gate, f"{name}.activation", config.hidden_act)
    return blocks.linear(blocks.tape.node(f"{name}.gated", "Mul", gate, up), f"{name}.down_proj", inner, width)


def _share(blocks: Blocks, packed: ir.Value, name: str, number: int, width: int) -> ir.Value:
    """The `number`-th `width` features of what one matrix gave for several purposes."""
    tape, start = blocks.tape, number * width
    return tape.node(name, "Slice", packed, tape.ints(start), tape.ints(start + width), tape.ints(-1))
