"""A small CLIP: two encoders with seeded weights, a tokenizer, and the settings of the image processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from stand_ins import WORDS

START, END = "<|startoftext|>", "<|endoftext|>"
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
BASE_PATCH32 = {
    "text_config": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
    },
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
    "projection_dim": 512,
}
"""What to override to get the dimensions of openai/clip-vit-base-patch32."""
PROCESSOR = {
    "crop_size": 32,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 32,
}
"""In the old form, with sizes as plain numbers, as openai/clip-vit-base-patch32 has it."""


def clip(folder: Path, seed: int = 0, **config: Any) -> Path:
    """config.json, model.safetensors, tokenizer.json and preprocessor_config.json in `folder`.

    `config` overrides any key; `text_config` and `vision_config` are merged into `TEXT` and `VISION`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(**config)
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(clip_weights(settings, seed), folder / "model.safetensors")
    clip_tokenizer().save(str(folder / "tokenizer.json"))
    side = settings["vision_config"]["image_size"]
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "crop_size": side, "size": side}))
    return folder


def settings_of(**config: Any) -> dict[str, Any]:
    """The whole config.json; keys that are left out here have transformers' defaults."""
    text, vision = ({**own, **config.pop(key, {})} for own, key in ((TEXT, "text_config"), (VISION, "vision_config")))
    return {"model_type": "clip", "projection_dim": 16, **config, "text_config": text, "vision_config": vision}


def clip_weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint by its name there."""
    random = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}

    def normal(name: str, spread: float, *shape: int, centre: float = 0) -> None:
        made[name] = np.asarray(centre + np.float32(spread) * random.standard_normal(shape, np.float32), np.float32)

    def norm(name: str, width: int) -> None:
        normal(f"{name}.weight", 0.1, width, centre=1)
        normal(f"{name}.bias", 0.1, width)

    def linear(name: str, inner: int, outer: int) -> None:
        normal(f"{name}.weight", inner**-0.5, outer, inner)
        normal(f"{name}.bias", 0.02, outer)

    def layers(tower: str, part: dict[str, Any]) -> None:
        width, inner = part["hidden_size"], part["intermediate_size"]
        for number in range(part["num_hidden_layers"]):
            layer = f"{tower}.encoder.layers.{number}"
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(f"{layer}.self_attn.{name}", width, width)
            norm(f"{layer}.layer_norm1", width)
            norm(f"{layer}.layer_norm2", width)
            linear(f"{layer}.mlp.fc1", width, inner)
            linear(f"{layer}.mlp.fc2", inner, width)

    text, vision, projection = config["text_config"], config["vision_config"], config["projection_dim"]
    width, patch = text["hidden_size"], vision["patch_size"]
    normal("text_model.embeddings.token_embedding.weight", 1, text["vocab_size"], width)
    normal("text_model.embeddings.position_embedding.weight", 0.5, text["max_position_embeddings"], width)
    layers("text_model", text)
    norm("text_model.final_layer_norm", width)
    normal("text_projection.weight", width**-0.5, projection, width)
    width, places = vision["hidden_size"], (vision["image_size"] // patch) ** 2 + 1
    normal("vision_model.embeddings.class_embedding", 1, width)
    normal("vision_model.embeddings.patch_embedding.weight", (3 * patch**2) ** -0.5, width, 3, patch, patch)
    normal("vision_model.embeddings.position_embedding.weight", 0.5, places, width)
    norm("vision_model.pre_layrnorm", width)
    layers("vision_model", vision)
    norm("vision_model.post_layernorm", width)
    normal("visual_projection.weight", width**-0.5, projection, width)
    normal("logit_scale", 0, centre=2.6592)
    return made


def clip_tokenizer() -> Tokenizer:
    """Whole words and single letters; start and end have the two largest ids, as in CLIP's vocabulary."""
    letters = [letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in WORDS]
    vocabulary = {token: number for number, token in enumerate(["[UNK]", *WORDS, *letters, START, END])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return made
