"""DeBERTa-v2 and -v3 encoders (arXiv:2006.03654, arXiv:2111.09543) and classifiers: `model_type: deberta-v2`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelkit.errors import StageError
from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs.blocks import Blocks
    from modelkit.graphs.disentangled import Distances
    from modelkit.graphs.tape import Drawn

PREFIXES = ("", "deberta.")
IDLE = (
    "*pooler.*",
    "*position_ids",
    "classifier.*",
    "cls.*",
    "lm_predictions.*",
    "mask_predictions.*",
    "*embeddings.position_embeddings.weight",
)
"""Heads, a buffer that old versions of transformers saved, and the absolute positions of pre-training, which an
encoder without `position_biased_input` leaves alone."""
TERMS = ("c2p", "p2c")


@dataclass(frozen=True)
class Options:
    """What is read of config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    embedding_size: int | None = None
    attention_head_size: int | None = None
    position_biased_input: bool = True
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    pos_att_type: tuple[str, ...] | str | None = None
    """A list, or its members in one text with `|` between them."""
    conv_kernel_size: int = 0
    pooler_hidden_size: int | None = None
    pooler_hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    num_labels: int = 2
    id2label: dict[str, str] | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of attention beside that between contents, in the order of `TERMS`."""
        return tuple(term for term in TERMS if term in self._named())

    @property
    def labels(self) -> int:
        """How many classes a classifier tells apart."""
        return self.num_labels if self.id2label is None else len(self.id2label)

    def refuse_unbuilt(self) -> None:
        """Raise `StageError` for what no type above can say."""
        odd = [name for name in self._named() if name not in TERMS]
        width, heads = self.hidden_size, self.num_attention_heads
        buckets, furthest = self.position_buckets, self.furthest
        wrong = {
            f"pos_att_type '{', '.join(odd)}'": odd,
            f"conv_kernel_size {self.conv_kernel_size} (a convolution beside the first layer)": self.conv_kernel_size,
            f"attention_head_size {self.attention_head_size}": self.attention_head_size not in (None, width // heads),
            f"pooler_hidden_size {self.pooler_hidden_size}": self.pooler_hidden_size not in (None, width),
            f"position_buckets {buckets} for {furthest} positions": buckets > 0 and not 2 <= buckets < 2 * furthest - 2,
        }
        for told in (told for told, found in wrong.items() if found):
            raise StageError(f"config.json: {told} is not built", hint="use `export: prebuilt` with an ONNX file")

    @property
    def furthest(self) -> int:
        """The distance beyond which all are alike."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    def _named(self) -> list[str]:
        named = self.pos_att_type or ()
        return [name.strip() for name in named.lower().split("|")] if isinstance(named, str) else list(named)


def draw_vectors(blocks: Blocks, config: Options, task: Any) -> Drawn:
    """Record the encoder, with the pooling that `task.text` asks for."""
    from modelkit.graphs import sentences  # noqa: PLC0415

    inputs, hidden = _encode(blocks, config)
    return sentences.vectors(blocks.tape, inputs, hidden, config.hidden_size, task.text)


def draw_logits(blocks: Blocks, config: Options, task: Any) -> Drawn:  # noqa: ARG001
    """Record the encoder and its classifier, which looks at the first token: `logits`, float32[batch, labels]."""
    import numpy as np  # noqa: PLC0415

    from modelkit.graphs import encoders  # noqa: PLC0415
    from modelkit.graphs.tape import Drawn, output  # noqa: PLC0415

    inputs, hidden = _encode(blocks, config)
    first = blocks.tape.node("pooler/first", "Gather", hidden, blocks.tape.constant(0, np.int64), axis=1)
    pooled = blocks.linear(first, "pooler.dense", config.hidden_size, config.hidden_size)
    pooled = encoders.activation(blocks, pooled, "pooler.activation", config.pooler_hidden_act)
    logits = blocks.linear(pooled, "classifier", config.hidden_size, config.labels)
    return Drawn(tuple(inputs.values()), [output(logits, "logits", ["batch", config.labels])])


PARTS = {"feature-extraction": {WHOLE: draw_vectors}, "zero-shot-classification": {WHOLE: draw_logits}}
"""Task -> part -> what records its graph."""


def _encode(blocks: Blocks, config: Options) -> tuple[dict[str, ir.Value], ir.Value]:
    from modelkit.graphs import disentangled, encoders, sentences  # noqa: PLC0415

    encoders.refuse_odd_heads(config.hidden_size, config.num_attention_heads)
    config.refuse_unbuilt()
    types = ("token_type_ids",) if config.type_vocab_size > 0 else ()
    inputs = sentences.token_inputs("input_ids", "attention_mask", *types)
    pairs = disentangled.kept_pairs(blocks.tape, inputs["attention_mask"])
    hidden, shared = _embed(blocks, inputs, config), _distances(blocks, inputs["input_ids"], config)
    for number in range(config.num_hidden_layers):
        hidden = _layer(blocks, hidden, pairs, shared, f"encoder.layer.{number}", config)
    return inputs, hidden


def _embed(blocks: Blocks, inputs: dict[str, ir.Value], config: Options) -> ir.Value:
    import onnx_ir as ir  # noqa: PLC0415

    tape, ids, name = blocks.tape, inputs["input_ids"], "embeddings"
    inner = config.embedding_size or config.hidden_size
    words = blocks.table(f"{name}.word_embeddings", config.vocab_size, inner)
    x = tape.node(f"{name}/words", "Gather", words, ids)
    if config.position_biased_input:
        table = blocks.table(f"{name}.position_embeddings", config.max_position_embeddings, inner)
        length = tape.node(f"{name}/length", "Shape", ids, start=1, end=2)
        x = tape.node(f"{name}/placed", "Add", x, tape.node(f"{name}/positions", "Slice", table, tape.ints(0), length))
    if config.type_vocab_size > 0:
        table = blocks.table(f"{name}.token_type_embeddings", config.type_vocab_size, inner)
        x = tape.node(f"{name}/typed", "Add", x, tape.node(f"{name}/types", "Gather", table, inputs["token_type_ids"]))
    if inner != config.hidden_size:
        x = blocks.linear(x, f"{name}.embed_proj", inner, config.hidden_size, bias=False)
    x = blocks.layer_norm(x, f"{name}.LayerNorm", config.hidden_size, config.layer_norm_eps)
    kept = tape.node(f"{name}/mask", "Cast", inputs["attention_mask"], to=ir.DataType.FLOAT)
    return tape.node(f"{name}/kept", "Mul", x, tape.node(f"{name}/mask/column", "Unsqueeze", kept, tape.ints(2)))


def _distances(blocks: Blocks, ids: ir.Value, config: Options) -> Distances | None:
    from modelkit.graphs.disentangled import Span, distances  # noqa: PLC0415

    if not config.relative_attention:
        return None
    span = Span(config.furthest, max(config.position_buckets, 0))
    table = blocks.table("encoder.rel_embeddings", 2 * span.rows, config.hidden_size)
    if "layer_norm" in config.norm_rel_ebd.lower():
        table = blocks.layer_norm(table, "encoder.LayerNorm", config.hidden_size, config.layer_norm_eps)
    return distances(blocks.tape, table, ids, span)


def _layer(
    blocks: Blocks, hidden: ir.Value, pairs: ir.Value, shared: Distances | None, name: str, config: Options
) -> ir.Value:
    from modelkit.graphs import encoders  # noqa: PLC0415
    from modelkit.graphs.disentangled import Attention  # noqa: PLC0415

    width, own = config.hidden_size, f"{name}.attention.self"
    attention = Attention(blocks, own, config.num_attention_heads, width, config.terms, config.share_att_key)
    attended = blocks.linear(attention.mixed(hidden, pairs, shared), f"{name}.attention.output.dense", width, width)
    attended = blocks.tape.node(f"{name}.attention.residual", "Add", attended, hidden)
    attended = blocks.layer_norm(attended, f"{name}.attention.output.LayerNorm", width, config.layer_norm_eps)
    return encoders.feed_forward(blocks, attended, name, config)
