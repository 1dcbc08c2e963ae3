"""CLIP (Radford et al. 2021, arXiv:2103.00020): a text and an image encoder into one space, `model_type: clip`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelkit.errors import StageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs.blocks import Blocks
    from modelkit.graphs.tape import Drawn

PREFIXES = ("", "clip.")
IDLE = ("logit_scale", "*position_ids")
"""The temperature that only ranks logits for a loss, and a buffer that old versions of transformers saved."""
LEGACY_END = 2
"""`eos_token_id` of the first published configurations, which is no end-of-text token: there the largest id is it."""


@dataclass(frozen=True)
class Text:
    """What is read of `text_config`; the defaults are those of transformers' `CLIPTextConfig`."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    layer_norm_eps: float = 1e-5
    hidden_act: Literal["quick_gelu", "gelu", "gelu_new", "relu"] = "quick_gelu"
    eos_token_id: int = 49407


@dataclass(frozen=True)
class Vision:
    """What is read of `vision_config`; the defaults are those of transformers' `CLIPVisionConfig`."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: Literal[3] = 3
    image_size: int = 224
    patch_size: int = 32
    layer_norm_eps: float = 1e-5
    hidden_act: Literal["quick_gelu", "gelu", "gelu_new", "relu"] = "quick_gelu"


@dataclass(frozen=True)
class Options:
    """What is read of config.json.

    The first checkpoints repeat a part's settings as `text_config_dict`, and transformers takes that if it is there.
    """

    text_config: Text | None = None
    vision_config: Vision | None = None
    text_config_dict: Text | None = None
    vision_config_dict: Vision | None = None
    projection_dim: int = 512

    @property
    def text(self) -> Text:
        """The settings of the text encoder."""
        return self.text_config_dict or self.text_config or Text()

    @property
    def vision(self) -> Vision:
        """The settings of the image encoder."""
        return self.vision_config_dict or self.vision_config or Vision()

    @property
    def positions(self) -> int:
        """The longest text, in tokens."""
        return self.text.max_position_embeddings


def draw_text(blocks: Blocks, config: Options, task: Any) -> Drawn:  # noqa: ARG001
    """Record input_ids, attention_mask int64[batch, sequence] -> text_embeds float32[batch, projection_dim]."""
    from modelkit.graphs import encoders, masks, pre_norm, sentences  # noqa: PLC0415

    text, tape = config.text, blocks.tape
    encoders.refuse_odd_heads(text.hidden_size, text.num_attention_heads)
    inputs = sentences.token_inputs("input_ids", "attention_mask")
    hidden = _placed_tokens(blocks, inputs["input_ids"], text)
    bias = masks.causal_bias(tape, inputs["input_ids"], inputs["attention_mask"])
    for number in range(text.num_hidden_layers):
        hidden = pre_norm.layer(blocks, hidden, bias, f"text_model.encoder.layers.{number}", text)
    last = tape.node("text_model/last", "GatherND", hidden, _end(blocks, inputs["input_ids"], text), batch_dims=1)
    last = blocks.layer_norm(last, "text_model.final_layer_norm", text.hidden_size, text.layer_norm_eps)
    return _projected(blocks, tuple(inputs.values()), last, "text", config.projection_dim, text.hidden_size)


def draw_image(blocks: Blocks, config: Options, task: Any) -> Drawn:  # noqa: ARG001
    """Record pixel_values float32[batch, 3, image_size, image_size] -> image_embeds float32[batch, projection_dim]."""
    import numpy as np  # noqa: PLC0415

    from modelkit.graphs import encoders, pre_norm  # noqa: PLC0415
    from modelkit.graphs.tape import typed  # noqa: PLC0415

    vision, tape = config.vision, blocks.tape
    encoders.refuse_odd_heads(vision.hidden_size, vision.num_attention_heads)
    side, width, epsilon = vision.image_size, vision.hidden_size, vision.layer_norm_eps
    pixels = typed("pixel_values", "float32", ["batch", vision.num_channels, side, side])
    hidden = blocks.layer_norm(_placed_patches(blocks, pixels, vision), "vision_model.pre_layrnorm", width, epsilon)
    everywhere = tape.constant(0.0, np.float32)  # every patch looks at every other; onnxruntime drops the sum
    for number in range(vision.num_hidden_layers):
        hidden = pre_norm.layer(blocks, hidden, everywhere, f"vision_model.encoder.layers.{number}", vision)
    first = tape.node("vision_model/first", "Gather", hidden, tape.constant(0, np.int64), axis=1)
    first = blocks.layer_norm(first, "vision_model.post_layernorm", width, epsilon)
    return _projected(blocks, (pixels,), first, "image", config.projection_dim, width)


PARTS = {"image-feature-extraction": {"text_model": draw_text, "vision_model": draw_image}}
"""Task -> part -> what records its graph."""


def _placed_tokens(blocks: Blocks, ids: ir.Value, text: Text) -> ir.Value:
    tape, name, width = blocks.tape, "text_model.embeddings", text.hidden_size
    words = blocks.table(f"{name}.token_embedding", text.vocab_size, width)
    places = blocks.table(f"{name}.position_embedding", text.max_position_embeddings, width)
    length = tape.node(f"{name}/length", "Shape", ids, start=1, end=2)
    tokens = tape.node(f"{name}/tokens", "Gather", words, ids)
    return tape.node(
        f"{name}/placed", "Add", tokens, tape.node(f"{name}/positions", "Slice", places, tape.ints(0), length)
    )  # fmt: skip


def _placed_patches(blocks: Blocks, pixels: ir.Value, vision: Vision) -> ir.Value:
    """float32[batch, 1 + patches, hidden_size]: the class token, then the patches row by row."""
    tape, name, width = blocks.tape, "vision_model.embeddings", vision.hidden_size
    patch, across = vision.patch_size, _patches_across(vision)
    kernel = blocks.parameter(f"{name}.patch_embedding.weight", width, vision.num_channels, patch, patch)
    grid = tape.node(f"{name}/grid", "Conv", pixels, kernel, kernel_shape=[patch, patch], strides=[patch, patch])
    flat = tape.node(f"{name}/flat", "Reshape", grid, tape.ints(0, width, across**2))
    patches = tape.node(f"{name}/patches", "Transpose", flat, perm=[0, 2, 1])
    batch = tape.node(f"{name}/batch", "Shape", pixels, start=0, end=1)
    shape = tape.node(f"{name}/class/shape", "Concat", batch, tape.ints(1, width), axis=0)
    token = tape.node(f"{name}/class", "Expand", blocks.parameter(f"{name}.class_embedding", width), shape)
    joined = tape.node(f"{name}/joined", "Concat", token, patches, axis=1)
    return tape.node(f"{name}/placed", "Add", joined, blocks.table(f"{name}.position_embedding", across**2 + 1, width))


def _patches_across(vision: Vision) -> int:
    if not 0 < vision.patch_size <= vision.image_size:
        raise StageError(
            f"config.json: images of {vision.image_size} pixels hold no patch of {vision.patch_size}",
            hint="correct config.json; fetch the source again",
        )
    # What is left over at the right and the lower edge is seen by no patch.
    return vision.image_size // vision.patch_size


def _end(blocks: Blocks, ids: ir.Value, text: Text) -> ir.Value:
    """int64[batch, 1]: where each text ends, the first place if it does not."""
    import numpy as np  # noqa: PLC0415
    import onnx_ir as ir  # noqa: PLC0415

    tape, ranked = blocks.tape, ids
    if text.eos_token_id != LEGACY_END:
        ranked = tape.node("text_model/ends", "Equal", ids, tape.constant(text.eos_token_id, np.int64))
    # ArgMax takes the first of equals. Not every runtime has it for int64.
    ranked = tape.node("text_model/ends/ranked", "Cast", ranked, to=ir.DataType.INT32)
    return tape.node("text_model/end", "ArgMax", ranked, axis=-1, keepdims=1)


def _projected(
    blocks: Blocks, inputs: tuple[ir.Value, ...], pooled: ir.Value, kind: str, width: int, inner: int
) -> Drawn:
    """`kind`_embeds: the pooled state in the space that texts and images share, as rows of length one."""
    from modelkit.graphs import sentences  # noqa: PLC0415
    from modelkit.graphs.tape import Drawn, output  # noqa: PLC0415

    name = "visual_projection" if kind == "image" else "text_projection"
    vector = sentences.unit(blocks.tape, blocks.linear(pooled, name, inner, width, bias=False))
    return Drawn(inputs, (output(vector, f"{kind}_embeds", ["batch", width]),))
