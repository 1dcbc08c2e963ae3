"""A DeBERTa-v2 classifier with seeded weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import stand_ins

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")

DEBERTA_V2 = {
    "model_type": "deberta-v2",
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "max_relative_positions": -1,
    "position_buckets": 16,
    "relative_attention": True,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "hidden_act": "gelu",
    "pooler_hidden_act": "gelu",
    "id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"},
    "label2id": {"contradiction": 2, "entailment": 0, "neutral": 1},
}


def deberta_v2(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A classifier in `folder`: config.json, model.safetensors, tokenizer.json. `config` overrides `DEBERTA_V2`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**DEBERTA_V2, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(weights(settings, seed), folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint by its name there, in the type that `torch_dtype` names (float32 without it)."""
    made = _Maker(np.random.default_rng(seed), np.dtype(config.get("torch_dtype", "float32")), config["hidden_size"])
    inner = config.get("embedding_size", config["hidden_size"])
    made.table("deberta.embeddings.word_embeddings", config["vocab_size"], inner)
    if config["position_biased_input"]:
        made.table("deberta.embeddings.position_embeddings", config["max_position_embeddings"], inner)
    if config["type_vocab_size"]:
        made.table("deberta.embeddings.token_type_embeddings", config["type_vocab_size"], inner)
    if inner != config["hidden_size"]:
        made.matrix("deberta.embeddings.embed_proj", config["hidden_size"], inner)
    made.norm("deberta.embeddings.LayerNorm")
    _distances(made, config)
    for number in range(config["num_hidden_layers"]):
        _layer(made, f"deberta.encoder.layer.{number}", config)
    made.linear("pooler.dense", config["hidden_size"], config["hidden_size"])
    made.linear("classifier", len(config["id2label"]), config["hidden_size"])
    return made.tensors


def _distances(made: _Maker, config: dict[str, Any]) -> None:
    if not config["relative_attention"]:
        return
    furthest = config["max_relative_positions"]
    furthest = furthest if furthest > 0 else config["max_position_embeddings"]
    rows = config["position_buckets"] if config["position_buckets"] > 0 else furthest
    made.table("deberta.encoder.rel_embeddings", 2 * rows, config["hidden_size"])
    if "layer_norm" in config["norm_rel_ebd"]:
        made.norm("deberta.encoder.LayerNorm")


def _layer(made: _Maker, name: str, config: dict[str, Any]) -> None:
    width, own = config["hidden_size"], f"{name}.attention.self"
    parts = ["query_proj", "key_proj", "value_proj"]
    if config["relative_attention"] and not config["share_att_key"]:
        parts += ["pos_key_proj"] * ("c2p" in config["pos_att_type"])
        parts += ["pos_query_proj"] * ("p2c" in config["pos_att_type"])
    for part in parts:
        made.linear(f"{own}.{part}", width, width)
    made.linear(f"{name}.attention.output.dense", width, width)
    made.norm(f"{name}.attention.output.LayerNorm")
    made.linear(f"{name}.intermediate.dense", config["intermediate_size"], width)
    made.linear(f"{name}.output.dense", width, config["intermediate_size"])
    made.norm(f"{name}.output.LayerNorm")


class _Maker:
    def __init__(self, random: np.random.Generator, dtype: np.dtype[Any], width: int) -> None:
        self.random, self.dtype, self.width = random, dtype, width
        self.tensors: dict[str, np.ndarray] = {}

    def table(self, name: str, rows: int, width: int, spread: float = 1) -> None:
        made = self.random.standard_normal((rows, width), dtype=np.float32)
        self.tensors[f"{name}.weight"] = np.multiply(made, np.float32(spread), out=made).astype(self.dtype, copy=False)

    def matrix(self, name: str, outer: int, inner: int) -> None:
        self.table(name, outer, inner, inner**-0.5)

    def linear(self, name: str, outer: int, inner: int) -> None:
        self.matrix(name, outer, inner)
        self.tensors[f"{name}.bias"] = self._vector(outer, 0, 0.05)

    def norm(self, name: str) -> None:
        self.tensors[f"{name}.weight"] = self._vector(self.width, 1, 0.1)
        self.tensors[f"{name}.bias"] = self._vector(self.width, 0, 0.1)

    def _vector(self, size: int, mean: float, spread: float) -> np.ndarray:
        return self.random.normal(mean, spread, size).astype(self.dtype)


def tokenizer() -> Tokenizer:
    """Unigram pieces with `▁` where a word begins; a pair of texts is [CLS] A [SEP] B [SEP], of types 0 and 1."""
    words = [f"▁{word}" for word in stand_ins.WORDS]
    letters = [*"▁abcdefghijklmnopqrstuvwxyz.,!?", "▁example", "▁This"]
    pieces = [(token, 0.0) for token in SPECIAL]
    pieces += [(piece, -2.0 - 0.1 * number) for number, piece in enumerate([*words, *letters[-2:]])]
    pieces += [(piece, -10.0 - 0.01 * number) for number, piece in enumerate(letters[:-2])]
    made = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index("[UNK]"), byte_fallback=False))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return made
