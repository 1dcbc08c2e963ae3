"""Small architecture-true models with seeded weights, made with numpy and `tokenizers`, and manifests for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "the", "a", "cat", "dog", "bird", "sat", "ran", "flew", "on", "under", "over", "mat", "house", "tree", "river",
    "bank", "money", "is", "was", "not", "and", "or",
]  # fmt: skip
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

BERT = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def bert(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A BERT encoder in `folder`: config.json, model.safetensors, tokenizer.json. `config` overrides `BERT`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**BERT, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(bert_weights(settings, seed), folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def bert_weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint by its name there."""
    random = np.random.default_rng(seed)
    width, inner = config["hidden_size"], config["intermediate_size"]
    made: dict[str, np.ndarray] = {}

    def linear(name: str, outer: int, inside: int) -> None:
        made[f"{name}.weight"] = random.normal(0, inside**-0.5, (outer, inside)).astype(np.float32)
        made[f"{name}.bias"] = random.normal(0, 0.02, outer).astype(np.float32)

    def norm(name: str) -> None:
        made[f"{name}.weight"] = random.normal(1, 0.1, width).astype(np.float32)
        made[f"{name}.bias"] = random.normal(0, 0.1, width).astype(np.float32)

    for table, rows in (
        ("word", "vocab_size"),
        ("position", "max_position_embeddings"),
        ("token_type", "type_vocab_size"),
    ):
        made[f"embeddings.{table}_embeddings.weight"] = random.normal(0, 1, (config[rows], width)).astype(np.float32)
    norm("embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", width, width)
        linear(f"{layer}.attention.output.dense", width, width)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", inner, width)
        linear(f"{layer}.output.dense", width, inner)
        norm(f"{layer}.output.LayerNorm")
    return made


def tokenizer() -> Tokenizer:
    """Whole words and single letters, with BERT's special tokens around a text."""
    letters = [letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in WORDS]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *WORDS, *letters])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return made


MANIFEST = """\
name: {name}
task: feature-extraction
license: Apache-2.0
source:
  path: {source}
  files: [config.json, "*.safetensors", tokenizer.json]
export: direct
signature:
  inputs:
    input_ids: int64[batch, sequence]
    attention_mask: int64[batch, sequence]
    token_type_ids: int64[batch, sequence]
  outputs:
    last_hidden_state: float32[batch, sequence, {width}]
    sentence_embedding: float32[batch, {width}]
text: {{max_tokens: 32, pooling: mean, normalize: true}}
variants:
  int8:
    channel: dev
    scheme: w8a8-per-token
    budget: 1 MB
  int4:
    channel: prod
    scheme: {{w4a8-per-token: {{block: 16, table_block: 32}}}}
    budget: 1 MB
    limits:
      parity:
        cosine_mean: 0.5
        cosine_p1: 0.3
        cosine_min: 0.1
        because: A seeded model has no redundancy for 4 bits to live on.
        until: 2099-01-01
      retrieval:
        top1: 0.1
        top10: 0.1
        spearman: 0.1
        because: A seeded model has no redundancy for 4 bits to live on.
        until: 2099-01-01
"""


def manifest(folder: Path, name: str = "tiny", source: str = "weights", width: int = 32) -> Path:
    """A manifest in `folder` for the stand-in in `folder/<source>`; its corpus is small, beside it."""
    path = folder / f"{name}.yaml"
    path.write_text(MANIFEST.format(name=name, source=source, width=width))
    return path


def project(folder: Path, name: str = "tiny", seed: int = 0) -> Path:
    """A whole project: weights, manifest, and a corpus of 60 texts of its own. Returns the manifest's path."""
    bert(folder / "weights", seed)
    corpus = folder / "conformance" / "corpora"
    corpus.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    rows = [{"id": f"t{n:03}", "text": " ".join(random.choice(WORDS, 1 + n % 20)), "group": "tiny"} for n in range(60)]
    (corpus / "feature-extraction.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest(folder, name)
