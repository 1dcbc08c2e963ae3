"""T5 and CodeT5 with seeded weights: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from stand_ins import pickles

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
"""In the order of CodeT5's ids, 0 to 4."""
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "vocab_size": 272,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "is_encoder_decoder": True,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CODET5_SMALL = {
    "vocab_size": 32100,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
"""The true dimensions of Salesforce/codet5-small."""


def t5(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A T5 in `folder`: config.json, model.safetensors, tokenizer.json. `config` overrides `T5`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**T5, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(t5_weights(settings, seed), folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def as_published(folder: Path, seed: int = 0, **config: Any) -> Path:
    """The same model in the files that CodeT5 is published in: a pickle, and no tokenizer.json."""
    t5(folder, seed, **config)
    settings = {**T5, **config}
    tied = {f"{place}.weight": "shared.weight" for place in ("encoder.embed_tokens", "decoder.embed_tokens")}
    if settings["tie_word_embeddings"]:
        tied["lm_head.weight"] = "shared.weight"
    pickles.save(t5_weights(settings, seed), folder / "pytorch_model.bin", tied)
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").unlink()
    legacy_tokenizer(folder)
    return folder


def legacy_tokenizer(folder: Path) -> None:
    """The tokenizer of `tokenizer()` in five older files, with three of CodeT5's hundred extra tokens."""
    model = json.loads(tokenizer().to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) + "\n" for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(merges), encoding="utf-8")
    flags = {"single_word": False, "lstrip": True, "rstrip": False, "normalized": True}
    extra = [{"content": f"<extra_id_{number}>", **flags} for number in (2, 1, 0)]
    numbers = {token["content"]: len(model["vocab"]) + place for place, token in enumerate(extra)}
    (folder / "added_tokens.json").write_text(json.dumps(numbers))
    (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": extra}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))


def t5_weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint by its name there.

    The sublayers speak louder than the tokens that go in: a tied head would otherwise repeat its last token for ever.
    With a large `embedding_range` it does, and no rounding changes what comes first.
    """
    random = np.random.default_rng(seed)
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    made: dict[str, np.ndarray] = {}

    def matrix(name: str, rows: int, columns: int, spread: float) -> None:
        made[f"{name}.weight"] = (random.standard_normal((rows, columns), np.float32) * np.float32(spread)).astype("f4")

    def norm(name: str) -> None:
        made[f"{name}.weight"] = random.normal(1, 0.1, width).astype(np.float32)

    def attention(name: str) -> None:
        norm(f"{name.rpartition('.')[0]}.layer_norm")
        # Unscaled scores: queries carry what other models divide by.
        matrix(f"{name}.q", inner, width, 2 * (width * config["d_kv"]) ** -0.5)
        for part in ("k", "v"):
            matrix(f"{name}.{part}", inner, width, width**-0.5)
        matrix(f"{name}.o", width, inner, 3 * inner**-0.5)

    def feed_forward(name: str) -> None:
        norm(f"{name}.layer_norm")
        for part in ("wi_0", "wi_1") if config["feed_forward_proj"].startswith("gated") else ("wi",):
            matrix(f"{name}.DenseReluDense.{part}", config["d_ff"], width, width**-0.5)
        matrix(f"{name}.DenseReluDense.wo", width, config["d_ff"], 6 * config["d_ff"] ** -0.5)

    matrix("shared", config["vocab_size"], width, config.get("embedding_range", 1.0))
    if not config["tie_word_embeddings"]:
        matrix("lm_head", config["vocab_size"], width, 1.0)
    for stack, layers in (("encoder", config["num_layers"]), ("decoder", config["num_decoder_layers"])):
        for number in range(layers):
            block = f"{stack}.block.{number}.layer"
            attention(f"{block}.0.SelfAttention")
            if stack == "decoder":
                attention(f"{block}.1.EncDecAttention")
            feed_forward(f"{block}.{2 if stack == 'decoder' else 1}")
        table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        matrix(table, config["relative_attention_num_buckets"], config["num_heads"], 1.0)
        norm(f"{stack}.final_layer_norm")
    return made


def tokenizer() -> Tokenizer:
    """Byte-level BPE as RoBERTa's, with CodeT5's special tokens: every byte is a token, and a few pairs of them."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("d", "e"), ("de", "f"), ("r", "e"), ("Ġ", "a"), ("i", "n")]
    words = [*SPECIAL, *letters, *("".join(pair) for pair in merges)]
    vocabulary = {token: number for number, token in enumerate(words)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), add_prefix_space=False
    )
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return made
