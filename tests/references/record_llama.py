"""Writes llama.json and qwen2.json: what transformers computes for the stand-ins. Needs torch and transformers 4.57.

python tests/references/record_llama.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from stand_ins import llama as stand_ins  # noqa: E402

STRETCHED = {**stand_ins.LLAMA_32_1B["rope_scaling"], "factor": 8.0, "original_max_position_embeddings": 64}
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "tied, grouped": {},
        "untied, biases, wide heads, llama3 positions": {
            "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True, "head_dim": 16,
            "rope_theta": 10000.0, "rope_scaling": STRETCHED,
        },
        "one key-value head, bfloat16": {"num_key_value_heads": 1, "torch_dtype": "bfloat16"},
        "a key-value head for each query head": {"num_key_value_heads": None, "num_hidden_layers": 1},
    },
    "qwen2": {
        "tied, grouped": {},
        "untied": {"tie_word_embeddings": False, "num_key_value_heads": 3},
    },
}  # fmt: skip
BATCH, LENGTH, NEW = 3, 24, 24
COLUMNS = 8
"""Logits that are kept of each row's first and last token."""


def feed(seed: int) -> dict[str, np.ndarray]:
    """A left-padded batch: its first row is whole, the others begin with padding."""
    random = np.random.default_rng(seed)
    padding = np.array([0, 5, 17])
    mask = (np.arange(LENGTH) >= padding[:, None]).astype(np.int64)
    ids = random.integers(3, stand_ins.LLAMA["vocab_size"], (BATCH, LENGTH)) * mask
    return {"input_ids": ids, "attention_mask": mask, "position_ids": np.maximum(mask.cumsum(1) - 1, 0)}


def recorded(architecture: str, config: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the reference framework computes for one stand-in."""
    with tempfile.TemporaryDirectory() as folder:
        source = getattr(stand_ins, architecture)(Path(folder), seed, **config)
        digest = sha256((source / "model.safetensors").read_bytes()).hexdigest()
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    inputs = {name: torch.tensor(array) for name, array in feed(seed).items()}
    with torch.no_grad():
        logits = model(**inputs).logits.numpy()
        del inputs["position_ids"]
        tokens = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0)
    padding = (LENGTH - inputs["attention_mask"].sum(1)).tolist()
    return {
        "config": config,
        "seed": seed,
        "weights": digest,
        "input_ids": inputs["input_ids"].tolist(),
        "attention_mask": inputs["attention_mask"].tolist(),
        "first": [logits[row, start, :COLUMNS].tolist() for row, start in enumerate(padding)],
        "last": logits[:, -1, :COLUMNS].tolist(),
        "lengths": np.linalg.norm(logits[:, -1].astype(np.float64), axis=-1).tolist(),
        "greedy": tokens[:, LENGTH:].tolist(),
    }


def main() -> None:
    """Record every model."""
    torch.set_num_threads(1)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    for architecture, models in MODELS.items():
        cases = {name: recorded(architecture, config, seed) for seed, (name, config) in enumerate(models.items())}
        text = json.dumps({"versions": versions, "cases": cases}, indent=None, separators=(",", ":"))
        (HERE / f"{architecture}.json").write_text(text.replace('"config"', '\n"config"') + "\n")


if __name__ == "__main__":
    main()
