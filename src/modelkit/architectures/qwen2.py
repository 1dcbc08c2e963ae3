"""Qwen2 and Qwen2.5 decoders (Yang et al. 2024, arXiv:2407.10671), full attention: `model_type: qwen2`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    from modelkit.graphs.blocks import Blocks
    from modelkit.graphs.tape import Drawn

PREFIXES = ("model.", "")
IDLE = ("lm_head.weight", "*.rotary_emb.inv_freq")
"""A tied model may carry its head once more, and old versions of transformers saved a buffer of frequencies."""


@dataclass(frozen=True)
class Options:
    """What is read of config.json; transformers 5 writes `rope_parameters` for `rope_theta` and `rope_scaling`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None
    head_dim: int | None = None
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    use_sliding_window: Literal[False] = False
    layer_types: tuple[Literal["full_attention"], ...] | None = None
    tie_word_embeddings: bool = False
    hidden_act: Literal["silu"] = "silu"


def draw_logits(blocks: Blocks, config: Options, task: Any) -> Drawn:  # noqa: ARG001
    """Record the decoder with its cache; queries, keys and values have biases, nothing else has."""
    from modelkit.graphs import decoders  # noqa: PLC0415

    return decoders.causal(blocks, config, decoders.Biases(queries_keys_values=True))


PARTS = {"text-generation": {WHOLE: draw_logits}}
"""Task -> part -> what records its graph."""
