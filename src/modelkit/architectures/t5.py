"""T5 and CodeT5 (Raffel et al. 2019, arXiv:1910.10683; Wang et al. 2021, arXiv:2109.00859), version 1.0 and the gated
1.1: `model_type: t5`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs.blocks import Blocks
    from modelkit.graphs.seq2seq import KeysValues
    from modelkit.graphs.tape import Drawn

PREFIXES = ("",)
IDLE = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "lm_head.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)
"""Copies of `shared.weight` that old checkpoints carry, and the bias of an attention that has no distances."""

KEYS, ENCODER_KEYS = "decoder", "encoder"
"""Whose keys and values a name speaks of: `present.0.decoder.key`."""


@dataclass(frozen=True)
class Options:
    """What is read of config.json."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_decoder_layers: int | None = None
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: Literal["relu", "gelu", "gated-gelu"] = "relu"
    tie_word_embeddings: bool = True
    is_encoder_decoder: Literal[True] = True

    @property
    def decoder_layers(self) -> int:
        """As many as the encoder has, unless config.json says otherwise."""
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers


def draw_whole(blocks: Blocks, config: Options, task: Any) -> Drawn:  # noqa: ARG001
    """Record encoder and decoder as one graph: the first step encodes, every later one passes on what that gave.

    Only what differs between the steps stands inside the `If`. The decoder is outside, once: before the first step its
    past is empty, so that the one graph serves both, and a runtime packs its weights once.
    """
    from modelkit.graphs import seq2seq  # noqa: PLC0415
    from modelkit.graphs.tape import Drawn, typed  # noqa: PLC0415

    ids = typed("input_ids", "int64", ["batch", "encoder_sequence"])
    kept = typed("attention_mask", "int64", ["batch", "encoder_sequence"])
    answer = typed("decoder_input_ids", "int64", ["batch", "decoder_sequence"])
    past, encoded = _pasts(config, KEYS), _pasts(config, ENCODER_KEYS)
    later = typed("use_cache_branch", "bool", [1])
    mask = blocks.attention_bias(kept)
    looked_at = _encoded_or_past(blocks, config, (later, ids, mask), encoded)
    hidden, present = seq2seq.decoder(blocks, answer, mask, looked_at, past, config)
    outputs = [_logits(blocks, hidden, config), *_presents(present, KEYS, config)]
    outputs += _presents(looked_at, ENCODER_KEYS, config)
    return Drawn([ids, kept, answer, *_flat(past), *_flat(encoded), later], outputs)


def draw_encoder(blocks: Blocks, config: Options, task: Any) -> Drawn:  # noqa: ARG001
    """Record the encoder alone."""
    from modelkit.graphs import seq2seq  # noqa: PLC0415
    from modelkit.graphs.tape import Drawn, output, typed  # noqa: PLC0415

    ids, kept = (typed(name, "int64", ["batch", "encoder_sequence"]) for name in ("input_ids", "attention_mask"))
    hidden = seq2seq.encoder(blocks, ids, blocks.attention_bias(kept), config)
    return Drawn([ids, kept], [output(hidden, "last_hidden_state", ["batch", "encoder_sequence", config.d_model])])


def draw_first_step(blocks: Blocks, config: Options, task: Any) -> Drawn:  # noqa: ARG001
    """Record the decoder's first step: from the encoder's output, without a past."""
    from modelkit.graphs import seq2seq  # noqa: PLC0415
    from modelkit.graphs.tape import Drawn, typed  # noqa: PLC0415

    kept, answer = _decoder_inputs()
    encoded = typed("encoder_hidden_states", "float32", ["batch", "encoder_sequence", config.d_model])
    looked_at = seq2seq.encoder_keys_values(blocks, encoded, config)
    hidden, present = seq2seq.decoder(blocks, answer, blocks.attention_bias(kept), looked_at, [], config)
    outputs = [_logits(blocks, hidden, config), *_presents(present, KEYS, config, "decoder_sequence")]
    return Drawn([kept, answer, encoded], outputs + _presents(looked_at, ENCODER_KEYS, config))


def draw_later_step(blocks: Blocks, config: Options, task: Any) -> Drawn:  # noqa: ARG001
    """Record every further step of the decoder; what it looks at in the encoder's output does not change."""
    from modelkit.graphs import seq2seq  # noqa: PLC0415
    from modelkit.graphs.tape import Drawn  # noqa: PLC0415

    kept, answer = _decoder_inputs()
    past, encoded = _pasts(config, KEYS), _pasts(config, ENCODER_KEYS)
    hidden, present = seq2seq.decoder(blocks, answer, blocks.attention_bias(kept), encoded, past, config)
    outputs = [_logits(blocks, hidden, config), *_presents(present, KEYS, config)]
    return Drawn([kept, answer, *_flat(past), *_flat(encoded)], outputs)


PARTS = {"text2text-generation": {WHOLE: draw_whole}}
"""Task -> part -> what records its graph."""
SPLIT = {
    "text2text-generation": {
        "encoder_model": draw_encoder,
        "decoder_model": draw_first_step,
        "decoder_with_past_model": draw_later_step,
    }
}


def _encoded_or_past(
    blocks: Blocks, config: Options, inputs: tuple[ir.Value, ir.Value, ir.Value], past: list[KeysValues]
) -> list[KeysValues]:
    from modelkit.graphs import seq2seq  # noqa: PLC0415

    later, ids, mask = inputs
    first, then = blocks.within(blocks.tape.inner()), blocks.tape.inner()
    encoded = seq2seq.encoder_keys_values(first, seq2seq.encoder(first, ids, mask, config), config)
    passed = [then.node(f"{value.name}.passed_on", "Identity", value) for value in _flat(past)]
    results = blocks.tape.op_multi_out(
        "If",
        [later],
        {
            "then_branch": _body("later_steps", then, passed),
            "else_branch": _body("first_step", first.tape, _flat(encoded)),
        },
        num_outputs=len(passed),
        name="encoded",
    )
    return [seq2seq.KeysValues(*results[at : at + 2]) for at in range(0, len(results), 2)]


def _body(name: str, tape: Any, outputs: list[ir.Value]) -> ir.Graph:
    import onnx_ir as ir  # noqa: PLC0415

    for value in outputs:
        value.dtype = ir.DataType.FLOAT
    return ir.Graph([], outputs, nodes=tape.nodes, name=name)


def _logits(blocks: Blocks, hidden: ir.Value, config: Options) -> ir.Value:
    import numpy as np  # noqa: PLC0415

    from modelkit.graphs.tape import output  # noqa: PLC0415

    tape, width, rows = blocks.tape, config.d_model, config.vocab_size
    if config.tie_word_embeddings:
        # Hidden states, not the shared table, are scaled: the table embeds as it is.
        scaled = tape.node("lm_head.scaled", "Mul", hidden, tape.constant(width**-0.5, np.float32))
        made = blocks.tied_head(scaled, blocks.table("shared", rows, width), "lm_head")
    else:
        made = blocks.linear(hidden, "lm_head", width, rows, bias=False)
    return output(made, "logits", ["batch", "decoder_sequence", rows])


def _decoder_inputs() -> tuple[ir.Value, ir.Value]:
    from modelkit.graphs.tape import typed  # noqa: PLC0415

    return (
        typed("encoder_attention_mask", "int64", ["batch", "encoder_sequence"]),
        typed("input_ids", "int64", ["batch", "decoder_sequence"]),
    )


def _pasts(config: Options, side: str) -> list[KeysValues]:
    from modelkit.graphs.seq2seq import KeysValues  # noqa: PLC0415
    from modelkit.graphs.tape import typed  # noqa: PLC0415

    axes: list[int | str] = [
        "batch",
        config.num_heads,
        "past_decoder_sequence" if side == KEYS else "encoder_sequence",
        config.d_kv,
    ]
    return [
        KeysValues(*(typed(f"past_key_values.{n}.{side}.{part}", "float32", axes) for part in KeysValues._fields))
        for n in range(config.decoder_layers)
    ]


def _presents(
    pairs: list[KeysValues], side: str, config: Options, length: str = "total_decoder_sequence"
) -> list[ir.Value]:
    from modelkit.graphs.tape import output  # noqa: PLC0415

    axes: list[int | str] = ["batch", config.num_heads, length if side == KEYS else "encoder_sequence", config.d_kv]
    return [
        output(value, f"present.{n}.{side}.{part}", axes)
        for n, pair in enumerate(pairs)
        for part, value in zip(pair._fields, pair, strict=True)
    ]


def _flat(pairs: list[KeysValues]) -> list[ir.Value]:
    return [value for pair in pairs for value in pair]
