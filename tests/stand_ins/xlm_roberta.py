"""A small XLM-RoBERTa encoder, and a Unigram tokenizer such as such models have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import stand_ins
from stand_ins import pickles

XLM_ROBERTA = {
    "model_type": "xlm-roberta",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
}
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def xlm_roberta(folder: Path, seed: int = 0, **config: Any) -> Path:
    """An XLM-RoBERTa encoder in `folder`: config.json, model.safetensors, tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**XLM_ROBERTA, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    # The tensors are BERT's, by the same names.
    save_file(stand_ins.bert_weights(settings, seed), folder / "model.safetensors")
    unigram().save(str(folder / "tokenizer.json"))
    return folder


def as_published(folder: Path, seed: int = 0, **config: Any) -> Path:
    """The same model with its weights in a pickle, as bge-m3 is published."""
    xlm_roberta(folder, seed, **config)
    (folder / "model.safetensors").unlink()
    pickles.save(stand_ins.bert_weights({**XLM_ROBERTA, **config}, seed), folder / "pytorch_model.bin")
    return folder


def unigram() -> Tokenizer:
    """Words and letters after sentencepiece's fashion: `▁` stands for the space before a word."""
    words = [f"▁{word}" for word in stand_ins.WORDS]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz"]
    pieces = [(token, 0.0) for token in SPECIAL] + [(w, -2.0) for w in words] + [(n, -6.0) for n in letters]
    made = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index("<unk>")))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", SPECIAL.index("<s>")), ("</s>", SPECIAL.index("</s>"))]
    )
    made.add_special_tokens(list(SPECIAL))
    return made


def padded_feed(config: dict[str, Any], batch: int = 4, sequence: int = 11, seed: int = 0) -> dict[str, np.ndarray]:
    """Token ids of texts of different lengths, padded at the end with the padding's own id."""
    random = np.random.default_rng(seed)
    pad = config["pad_token_id"]
    mask = (np.arange(sequence) < random.integers(1, sequence + 1, (batch, 1))).astype(np.int64)
    ids = random.integers(pad + 1, config["vocab_size"], (batch, sequence))
    return {"input_ids": np.where(mask, ids, pad), "attention_mask": mask}
