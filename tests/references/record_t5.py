"""Writes t5.json: what transformers computes for the stand-ins. Needs torch and transformers 4.57.

python tests/references/record_t5.py
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

from stand_ins.t5 import T5, t5  # noqa: E402

MODELS: dict[str, dict[str, Any]] = {
    "tied, relu": {},
    "untied, gated, short decoder": {
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 1, "d_kv": 16,
    },
    "exact gelu, true buckets": {
        "feed_forward_proj": "gelu", "num_layers": 3, "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
    },
}  # fmt: skip
BATCH, LENGTH, NEW, COLUMNS = 3, 40, 32, 8


def feed(seed: int) -> dict[str, np.ndarray]:
    """A right-padded batch: its first row is whole, the others end with padding."""
    random = np.random.default_rng(seed)
    mask = (np.arange(LENGTH) < np.array([[LENGTH], [17], [1]])).astype(np.int64)
    return {"input_ids": random.integers(5, T5["vocab_size"], (BATCH, LENGTH)) * mask, "attention_mask": mask}


def recorded(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the reference framework computes for one stand-in."""
    with tempfile.TemporaryDirectory() as folder:
        source = t5(Path(folder), seed, **config)
        digest = sha256((source / "model.safetensors").read_bytes()).hexdigest()
        model = transformers.T5ForConditionalGeneration.from_pretrained(source, dtype=torch.float32).eval()
    inputs = {name: torch.tensor(array) for name, array in feed(seed).items()}
    with torch.no_grad():
        tokens = model.generate(
            **inputs, max_new_tokens=NEW, do_sample=False, num_beams=1, eos_token_id=None, pad_token_id=0
        )
        logits = model(**inputs, decoder_input_ids=tokens[:, :-1]).logits.numpy()
    return {
        "config": config,
        "seed": seed,
        "weights": digest,
        "input_ids": inputs["input_ids"].tolist(),
        "attention_mask": inputs["attention_mask"].tolist(),
        "greedy": tokens.tolist(),
        "first": logits[:, 0, :COLUMNS].tolist(),
        "last": logits[:, -1, :COLUMNS].tolist(),
        "lengths": np.linalg.norm(logits[:, -1].astype(np.float64), axis=-1).tolist(),
    }


def main() -> None:
    """Record every model."""
    torch.set_num_threads(1)
    made = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "models": {name: recorded(config, seed) for seed, (name, config) in enumerate(MODELS.items())},
    }
    (HERE / "t5.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
