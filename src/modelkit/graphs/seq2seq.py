"""The sublayers of T5's stacks: normalised before, added after, without a bias anywhere; keys and values that last."""

from __future__ import annotations

from typing import Any, NamedTuple

import onnx_ir as ir

from modelkit.graphs import masks
from modelkit.graphs.blocks import Blocks
from modelkit.graphs.relative import position_bias


class KeysValues(NamedTuple):
    """What an attention looks at: two float32[batch, heads, sequence, d_kv]."""

    key: ir.Value
    value: ir.Value


def encoder(blocks: Blocks, ids: ir.Value, mask: ir.Value, config: Any) -> ir.Value:
    """int64[batch, encoder_sequence] and `Blocks.attention_bias` -> float32[batch, encoder_sequence, d_model]."""
    tape = blocks.tape
    places = masks.counted(tape, "encoder.positions", tape.ints(0), masks.length(tape, "encoder.length", ids))
    first = "encoder.block.0.layer.0.SelfAttention"
    bias = position_bias(blocks, first, places, places, _distances(config), both_ways=True)
    bias = tape.node("encoder.bias", "Add", bias, mask)
    hidden = _embed(blocks, "encoder", ids, config)
    for number in range(config.num_layers):
        name = f"encoder.block.{number}"
        normed = blocks.rms_norm(hidden, f"{name}.layer.0.layer_norm", config.d_model, config.layer_norm_epsilon)
        attention = f"{name}.layer.0.SelfAttention"
        mixed = _attend(blocks, attention, normed, keys_values(blocks, attention, normed, config), bias, config)
        hidden = tape.node(f"{name}.layer.0.sum", "Add", hidden, mixed)
        hidden = _feed_forward(blocks, hidden, f"{name}.layer.1", config)
    return blocks.rms_norm(hidden, "encoder.final_layer_norm", config.d_model, config.layer_norm_epsilon)


def encoder_keys_values(blocks: Blocks, encoded: ir.Value, config: Any) -> list[KeysValues]:
    """What each layer of the decoder looks at in the encoder's output; it stays the same for the whole answer."""
    names = (f"decoder.block.{number}.layer.1.EncDecAttention" for number in range(config.decoder_layers))
    return [keys_values(blocks, name, encoded, config) for name in names]


def decoder(
    blocks: Blocks, ids: ir.Value, mask: ir.Value, encoded: list[KeysValues], past: list[KeysValues], config: Any
) -> tuple[ir.Value, list[KeysValues]]:
    """float32[batch, decoder_sequence, d_model], and each layer's keys and values, those of `past` (or none) in front.

    `mask` is `Blocks.attention_bias` of the encoder's mask.
    """
    tape = blocks.tape
    bias = _decoder_bias(blocks, ids, past, config)
    hidden, present = _embed(blocks, "decoder", ids, config), []
    for number in range(config.decoder_layers):
        name = f"decoder.block.{number}"
        attention = f"{name}.layer.0.SelfAttention"
        normed = blocks.rms_norm(hidden, f"{name}.layer.0.layer_norm", config.d_model, config.layer_norm_epsilon)
        both = keys_values(blocks, attention, normed, config)
        if past:
            both = KeysValues(*(tape.node(f"{attention}.{part}s", "Concat", old, new, axis=2)
                                for part, old, new in zip(both._fields, past[number], both, strict=True)))  # fmt: skip
        present.append(both)
        mixed = _attend(blocks, attention, normed, both, bias, config)
        hidden = tape.node(f"{name}.layer.0.sum", "Add", hidden, mixed)
        normed = blocks.rms_norm(hidden, f"{name}.layer.1.layer_norm", config.d_model, config.layer_norm_epsilon)
        mixed = _attend(blocks, f"{name}.layer.1.EncDecAttention", normed, encoded[number], mask, config)
        hidden = tape.node(f"{name}.layer.1.sum", "Add", hidden, mixed)
        hidden = _feed_forward(blocks, hidden, f"{name}.layer.2", config)
    return blocks.rms_norm(hidden, "decoder.final_layer_norm", config.d_model, config.layer_norm_epsilon), present


def keys_values(blocks: Blocks, name: str, x: ir.Value, config: Any) -> KeysValues:
    """float32[batch, sequence, d_model] -> what an attention looks at."""
    return KeysValues(_per_head(blocks, name, "k", x, config), _per_head(blocks, name, "v", x, config))


def _embed(blocks: Blocks, name: str, ids: ir.Value, config: Any) -> ir.Value:
    table = blocks.table("shared", config.vocab_size, config.d_model)
    return blocks.tape.node(f"{name}.tokens", "Gather", table, ids)


def _distances(config: Any) -> tuple[int, int, int]:
    return config.relative_attention_num_buckets, config.relative_attention_max_distance, config.num_heads


def _decoder_bias(blocks: Blocks, ids: ir.Value, past: list[KeysValues], config: Any) -> ir.Value:
    """Distance, and no look at what comes later: float32[1, heads, decoder_sequence, total_decoder_sequence]."""
    tape, name = blocks.tape, "decoder.block.0.layer.0.SelfAttention"
    start, end = tape.ints(0), masks.length(tape, "decoder.length", ids)
    if past:
        start = tape.node("decoder.past_length", "Shape", past[0].key, start=2, end=3)
        end = tape.node("decoder.total_length", "Add", start, end)
    queries = masks.counted(tape, "decoder.positions", start, end)
    keys = masks.counted(tape, "decoder.key_positions", tape.ints(0), end) if past else queries
    near = position_bias(blocks, name, queries, keys, _distances(config), both_ways=False)
    hidden = masks.bias(tape, "decoder.hidden", masks.not_later(tape, "decoder.seen", keys, queries))
    return tape.node("decoder.bias", "Add", near, hidden)


def _per_head(blocks: Blocks, name: str, part: str, x: ir.Value, config: Any) -> ir.Value:
    tape, heads, width = blocks.tape, config.num_heads, config.d_kv
    product = blocks.linear(x, f"{name}.{part}", config.d_model, heads * width, bias=False)
    split = tape.node(f"{name}.{part}.split", "Reshape", product, tape.ints(0, 0, heads, width))
    return tape.node(f"{name}.{part}.per_head", "Transpose", split, perm=[0, 2, 1, 3])


def _attend(blocks: Blocks, name: str, x: ir.Value, seen: KeysValues, bias: ir.Value, config: Any) -> ir.Value:
    """Attention whose scores are not scaled: T5's initialisation does that."""
    tape, inner = blocks.tape, config.num_heads * config.d_kv
    query = _per_head(blocks, name, "q", x, config)
    turned = tape.node(f"{name}.keys_turned", "Transpose", seen.key, perm=[0, 1, 3, 2])
    scores = tape.node(f"{name}.scores", "MatMul", query, turned)
    shares = tape.node(f"{name}.shares", "Softmax", tape.node(f"{name}.biased", "Add", scores, bias), axis=-1)
    mixed = tape.node(f"{name}.mixed", "MatMul", shares, seen.value)
    joined = tape.node(f"{name}.joined", "Transpose", mixed, perm=[0, 2, 1, 3])
    joined = tape.node(f"{name}.flat", "Reshape", joined, tape.ints(0, 0, inner))
    return blocks.linear(joined, f"{name}.o", inner, config.d_model, bias=False)


def _feed_forward(blocks: Blocks, x: ir.Value, name: str, config: Any) -> ir.Value:
    tape, width, inner = blocks.tape, config.d_model, config.d_ff
    dense = f"{name}.DenseReluDense"
    normed = blocks.rms_norm(x, f"{name}.layer_norm", config.d_model, config.layer_norm_epsilon)
    if config.feed_forward_proj == "gated-gelu":
        opened = blocks.linear(normed, f"{dense}.wi_0", width, inner, bias=False)
        # By that name transformers means the tanh approximation, `gelu_new`; by "gelu" the exact one.
        opened = tape.node(f"{dense}.activation", "Gelu", opened, approximate="tanh")
        wide = blocks.linear(normed, f"{dense}.wi_1", width, inner, bias=False)
        wide = tape.node(f"{dense}.gated", "Mul", opened, wide)
    else:
        wide = blocks.linear(normed, f"{dense}.wi", width, inner, bias=False)
        kind = {"relu": "Relu", "gelu": "Gelu"}[config.feed_forward_proj]
        wide = tape.node(f"{dense}.activation", kind, wide)
    narrow = blocks.linear(wide, f"{dense}.wo", inner, width, bias=False)
    return tape.node(f"{name}.sum", "Add", x, narrow)
