"""Causal decoders of the Llama family: root-mean-square norms, rotary positions, grouped queries, gated feed-forward.

The graph takes the keys and values of earlier tokens and gives them back longer, under the names that optimum uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs import masks, rotary
from modelkit.graphs.blocks import Blocks
from modelkit.graphs.tape import Drawn, Tape, output, typed

Cache = tuple[ir.Value, ir.Value]
"""Keys and values of one layer: float32[batch, kv_heads, tokens, head_dim] each."""


@dataclass(frozen=True)
class Biases:
    """Which linear layers have one."""

    queries_keys_values: bool = False
    attention_output: bool = False
    feed_forward: bool = False


@dataclass(frozen=True)
class Heads:
    """How attention divides the width: `queries` heads of `size`, in groups that share one of `kv` keys and values."""

    queries: int
    kv: int
    size: int


@dataclass(frozen=True)
class Plan:
    """What all layers have in common."""

    config: Any
    heads: Heads
    biases: Biases
    rotation: rotary.Rotation
    mask: ir.Value
    """float32[batch, 1, sequence, total_sequence] of 0 and `masks.LOWEST`."""


def causal(blocks: Blocks, config: Any, biases: Biases) -> Drawn:
    """Record a causal language model: tokens and a cache -> logits of every position and the longer cache.

    `config` has the keys of a Llama config.json. Raises `StageError` when they do not fit together.
    """
    heads, tape = _heads(config), blocks.tape
    ids, mask, positions = (
        typed("input_ids", "int64", ["batch", "sequence"]),
        typed("attention_mask", "int64", ["batch", "total_sequence"]),
        typed("position_ids", "int64", ["batch", "sequence"]),
    )
    pasts = [_past(number, heads) for number in range(config.num_hidden_layers)]
    rotation = rotary.rotation(tape, positions, rotary.frequencies(config, heads.size))
    plan = Plan(config, heads, biases, rotation, masks.causal_bias(tape, ids, mask))
    table = blocks.table("embed_tokens", config.vocab_size, config.hidden_size)
    hidden, presents = tape.node("tokens", "Gather", table, ids), []
    for number, past in enumerate(pasts):
        hidden, present = _layer(blocks, hidden, f"layers.{number}", past, plan)
        presents += _present(present, number, heads)
    hidden = blocks.rms_norm(hidden, "norm", config.hidden_size, config.rms_norm_eps)
    logits = output(_head(blocks, hidden, table, config), "logits", ["batch", "sequence", config.vocab_size])
    return Drawn([ids, mask, positions, *(value for past in pasts for value in past)], [logits, *presents])


def _heads(config: Any) -> Heads:
    queries = config.num_attention_heads
    kv = queries if config.num_key_value_heads is None else config.num_key_value_heads
    if queries < 1 or kv < 1 or queries % kv:
        raise StageError(
            f"config.json: {queries} attention heads do not divide into groups for {kv} key-value heads",
            hint="correct config.json; fetch the source again",
        )
    if config.head_dim is None and config.hidden_size % queries:
        raise StageError(
            f"config.json: hidden_size {config.hidden_size} does not divide into {queries} heads",
            hint="correct config.json; fetch the source again",
        )
    return Heads(queries, kv, config.hidden_size // queries if config.head_dim is None else config.head_dim)


def _past(number: int, heads: Heads) -> Cache:
    shape: list[int | str] = ["batch", heads.kv, "past_sequence", heads.size]
    key, value = (typed(f"past_key_values.{number}.{part}", "float32", shape) for part in ("key", "value"))
    return key, value


def _present(present: Cache, number: int, heads: Heads) -> list[ir.Value]:
    shape: list[int | str] = ["batch", heads.kv, "total_sequence", heads.size]
    return [output(x, f"present.{number}.{part}", shape) for x, part in zip(present, ("key", "value"), strict=True)]


def _layer(blocks: Blocks, hidden: ir.Value, name: str, past: Cache, plan: Plan) -> tuple[ir.Value, Cache]:
    tape, width, epsilon = blocks.tape, plan.config.hidden_size, plan.config.rms_norm_eps
    normed = blocks.rms_norm(hidden, f"{name}.input_layernorm", width, epsilon)
    attended, present = _attention(blocks, normed, f"{name}.self_attn", past, plan)
    hidden = tape.node(f"{name}.self_attn.residual", "Add", hidden, attended)
    normed = blocks.rms_norm(hidden, f"{name}.post_attention_layernorm", width, epsilon)
    return tape.node(f"{name}.mlp.residual", "Add", hidden, _feed_forward(blocks, normed, f"{name}.mlp", plan)), present


def _attention(blocks: Blocks, x: ir.Value, name: str, past: Cache, plan: Plan) -> tuple[ir.Value, Cache]:
    tape, heads, width = blocks.tape, plan.heads, plan.config.hidden_size

    def per_head(part: str, count: int) -> ir.Value:
        flat = blocks.linear(
            x, f"{name}.{part}_proj", width, count * heads.size, bias=plan.biases.queries_keys_values
        )  # fmt: skip
        split = tape.node(f"{name}/{part}/split", "Reshape", flat, tape.ints(0, 0, count, heads.size))
        return tape.node(f"{name}/{part}", "Transpose", split, perm=[0, 2, 1, 3])

    query = rotary.turned(tape, f"{name}/query", per_head("q", heads.queries), plan.rotation, heads.size)
    key = rotary.turned(tape, f"{name}/key", per_head("k", heads.kv), plan.rotation, heads.size)
    key = tape.node(f"{name}/keys", "Concat", past[0], key, axis=2)
    value = tape.node(f"{name}/values", "Concat", past[1], per_head("v", heads.kv), axis=2)
    mixed = _mixed(tape, name, query, (key, value), plan)
    outer = heads.queries * heads.size
    joined = tape.node(f"{name}/joined", "Reshape", mixed, tape.ints(0, 0, outer))
    return blocks.linear(joined, f"{name}.o_proj", outer, width, bias=plan.biases.attention_output), (key, value)


def _mixed(tape: Tape, name: str, query: ir.Value, present: Cache, plan: Plan) -> ir.Value:
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245): [batch, heads, sequence, size] queries
    -> [batch, sequence, heads, size].

    The queries of a group lie one below the other: keys and values are read where they are, not copied per head.
    """
    (key, value), heads = present, plan.heads
    grouped, single = tape.ints(0, heads.kv, -1, 0), tape.ints(0, heads.queries, -1, 0)
    query = tape.node(f"{name}/query/grouped", "Reshape", query, grouped)
    turned = tape.node(f"{name}/keys/transposed", "Transpose", key, perm=[0, 1, 3, 2])
    scores = tape.node(f"{name}/scores", "MatMul", query, turned)
    scores = tape.node(f"{name}/scaled", "Mul", scores, tape.constant(1 / math.sqrt(heads.size), np.float32))
    scores = tape.node(f"{name}/scaled/single", "Reshape", scores, single)
    shares = tape.node(f"{name}/shares", "Softmax", tape.node(f"{name}/masked", "Add", scores, plan.mask), axis=-1)
    shares = tape.node(f"{name}/shares/grouped", "Reshape", shares, grouped)
    mixed = tape.node(f"{name}/mixed/grouped", "MatMul", shares, value)
    mixed = tape.node(f"{name}/mixed", "Reshape", mixed, single)
    return tape.node(f"{name}/mixed/transposed", "Transpose", mixed, perm=[0, 2, 1, 3])


def _feed_forward(blocks: Blocks, x: ir.Value, name: str, plan: Plan) -> ir.Value:
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""
    tape, width, inner = blocks.tape, plan.config.hidden_size, plan.config.intermediate_size
    bias = plan.biases.feed_forward
    gate = blocks.linear(x, f"{name}.gate_proj", width, inner, bias=bias)
    open_ = tape.node(f"{name}/silu", "Mul", gate, tape.node(f"{name}/sigmoid", "Sigmoid", gate))
    up = blocks.linear(x, f"{name}.up_proj", width, inner, bias=bias)
    return blocks.linear(tape.node(f"{name}/gated", "Mul", open_, up), f"{name}.down_proj", inner, width, bias=bias)


def _head(blocks: Blocks, hidden: ir.Value, table: ir.Value, config: Any) -> ir.Value:
    if config.tie_word_embeddings:
        return blocks.tied_head(hidden, table, "lm_head")
    return blocks.linear(hidden, "lm_head", config.hidden_size, config.vocab_size, bias=False)
