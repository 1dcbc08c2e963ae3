"""A small GTE encoder of `model_type: new`, with the tokenizer of XLM-RoBERTa."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from stand_ins.xlm_roberta import unigram

NEW = {
    "model_type": "new",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "hidden_act": "gelu",
    "position_embedding_type": "rope",
    "rope_theta": 20000,
    "rope_scaling": {"type": "ntk", "factor": 8.0},
    "pack_qkv": True,
    "logn_attention_scale": False,
    "logn_attention_clip1": False,
    "unpad_inputs": False,
}


def new(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A GTE encoder in `folder`: config.json, model.safetensors, tokenizer.json. Tensors have the prefix `new.`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**NEW, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = {f"new.{name}": array for name, array in new_weights(settings, seed).items()}
    # gte-multilingual-base is stored with the head that weighs tokens for sparse retrieval.
    head = {"classifier.weight": np.ones((1, settings["hidden_size"]), np.float32), "classifier.bias": np.zeros(1, "f")}
    save_file(tensors | head, folder / "model.safetensors")
    unigram().save(str(folder / "tokenizer.json"))
    return folder


def new_weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the encoder, without its prefix."""
    random = np.random.default_rng(seed)
    width, inner = config["hidden_size"], config["intermediate_size"]
    made: dict[str, np.ndarray] = {}

    def linear(name: str, outer: int, inside: int, bias: bool = True) -> None:
        made[f"{name}.weight"] = random.normal(0, inside**-0.5, (outer, inside)).astype(np.float32)
        if bias:
            made[f"{name}.bias"] = random.normal(0, 0.02, outer).astype(np.float32)

    def norm(name: str) -> None:
        made[f"{name}.weight"] = random.normal(1, 0.1, width).astype(np.float32)
        made[f"{name}.bias"] = random.normal(0, 0.1, width).astype(np.float32)

    for table, rows in (("word", "vocab_size"), ("token_type", "type_vocab_size")):
        if config[rows]:
            name = f"embeddings.{table}_embeddings.weight"
            made[name] = random.normal(0, 1, (config[rows], width)).astype(np.float32)
    norm("embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        linear(f"{layer}.attention.qkv_proj", 3 * width, width)
        linear(f"{layer}.attention.o_proj", width, width)
        norm(f"{layer}.attn_ln")
        linear(f"{layer}.mlp.up_gate_proj", 2 * inner, width, bias=False)
        linear(f"{layer}.mlp.down_proj", width, inner)
        norm(f"{layer}.mlp_ln")
    return made
