"""Llama and Qwen2 decoders with seeded weights, a byte-level tokenizer, a chat template and generation settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SHARD = 1_000_000_000
"""Bytes after which a checkpoint goes on in another file."""

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 288,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000,
    "rope_scaling": None,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "initializer_range": 0.3,  # with less a tiny model repeats one token
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
QWEN2 = {
    **{key: value for key, value in LLAMA.items() if key not in ("attention_bias", "mlp_bias")},
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "sliding_window": 256,
    "use_sliding_window": False,
    "max_window_layers": 2,
}
SMOLLM2_135M = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rope_theta": 100000,
    "initializer_range": 0.041666666666666664, "torch_dtype": "bfloat16",
}  # fmt: skip
"""What differs from `LLAMA` in the real model."""
LLAMA_32_1B = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
    "rope_theta": 500000.0, "initializer_range": 0.02, "torch_dtype": "bfloat16",
    "rope_scaling": {
        "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}  # fmt: skip
QWEN25_15B = {
    "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 32768,
    "sliding_window": 32768, "max_window_layers": 21, "initializer_range": 0.02, "torch_dtype": "bfloat16",
}  # fmt: skip
"""What differs from `QWEN2` in the real model, which leaves head_dim to be computed."""
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def llama(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A Llama decoder in `folder`; `config` overrides `LLAMA`."""
    return _written(folder, {**LLAMA, **config}, seed)


def qwen2(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A Qwen2 decoder in `folder`; `config` overrides `QWEN2`."""
    return _written(folder, {**QWEN2, **config}, seed)


def weights(config: dict[str, Any], seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of every tensor of the checkpoint, one after the other.

    `embedding_range` is that of the token table, which otherwise has everything's: the louder the tokens, the farther
    are the logits of a tied head from a tie that rounding would decide.
    """
    random, spread = np.random.default_rng(seed), np.float32(config["initializer_range"])
    dtype = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[config["torch_dtype"]]
    width, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or width // heads
    kv = (config.get("num_key_value_heads") or heads) * size

    def drawn(*shape: int, around: float = 0.0, spread: np.float32 = spread) -> np.ndarray:
        values = random.standard_normal(shape, np.float32)
        values *= spread
        return (values + np.float32(around) if around else values).astype(dtype)

    def linear(name: str, outer: int, inside: int, bias: bool) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{name}.weight", drawn(outer, inside)
        if bias:
            yield f"{name}.bias", drawn(outer)

    qkv_bias = config["model_type"] == "qwen2" or config["attention_bias"]
    mlp_bias, output_bias = config.get("mlp_bias", False), config.get("attention_bias", False)
    loud = np.float32(config.get("embedding_range", spread))
    yield "model.embed_tokens.weight", drawn(config["vocab_size"], width, spread=loud)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", drawn(width, around=1)
        yield from linear(f"{layer}.self_attn.q_proj", heads * size, width, qkv_bias)
        yield from linear(f"{layer}.self_attn.k_proj", kv, width, qkv_bias)
        yield from linear(f"{layer}.self_attn.v_proj", kv, width, qkv_bias)
        yield from linear(f"{layer}.self_attn.o_proj", width, heads * size, output_bias)
        yield f"{layer}.post_attention_layernorm.weight", drawn(width, around=1)
        yield from linear(f"{layer}.mlp.gate_proj", inner, width, mlp_bias)
        yield from linear(f"{layer}.mlp.up_proj", inner, width, mlp_bias)
        yield from linear(f"{layer}.mlp.down_proj", width, inner, mlp_bias)
    yield "model.norm.weight", drawn(width, around=1)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", drawn(config["vocab_size"], width)


def tokenizer() -> Tokenizer:
    """Byte-level BPE with a few merges: ids 0-2 are special, then come 256 bytes and the merged pairs."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("e", "r"), ("Ġ", "a"), ("o", "n"), ("a", "n")]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters, *map("".join, merges)])}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return made


def _written(folder: Path, config: dict[str, Any], seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder, config, seed)
    tokenizer().save(str(folder / "tokenizer.json"))
    eos = config["eos_token_id"]
    told = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": config["bos_token_id"], "eos_token_id": [eos], "pad_token_id": eos},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[1],
            "eos_token": SPECIAL[2],
            "pad_token": SPECIAL[2],
            "chat_template": CHATML,
            "model_max_length": config["max_position_embeddings"],
        },
    }
    for name, content in told.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    return folder


def _write_weights(folder: Path, config: dict[str, Any], seed: int) -> None:
    """One file, or shards with an index as the hub has them; memory holds one shard."""
    shards: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    for name, values in weights(config, seed):
        held[name] = values
        if sum(array.nbytes for array in held.values()) >= SHARD:
            shards.append(_write_shard(folder, len(shards) + 1, held))
    if not shards:
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
        return
    if held:
        shards.append(_write_shard(folder, len(shards) + 1, held))
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for number, name in enumerate(names, 1):
        (folder / _shard(number)).rename(folder / name)
    places = {tensor: name for tensors, name in zip(shards, names, strict=True) for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _write_shard(folder: Path, number: int, held: dict[str, np.ndarray]) -> list[str]:
    save_file(held, folder / _shard(number), metadata={"format": "pt"})
    names = list(held)
    held.clear()
    return names


def _shard(number: int) -> str:
    return f"model-{number:05}.safetensors"
