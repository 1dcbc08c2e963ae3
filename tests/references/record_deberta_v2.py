"""Records what transformers computes for the DeBERTa-v2 stand-ins. Needs torch and transformers 4; from `tests`:

python -m references.record_deberta_v2 > references/deberta_v2.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import DebertaV2ForSequenceClassification, PreTrainedTokenizerFast, ZeroShotClassificationPipeline
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from stand_ins.deberta_v2 import DEBERTA_V2, deberta_v2

CASES: dict[str, dict[str, Any]] = {
    "as published": {},
    "types as one text": {"pos_att_type": "p2c|c2p"},
    "c2p alone": {"pos_att_type": ["c2p"]},
    "p2c alone": {"pos_att_type": ["p2c"]},
    "own projections for distances": {"share_att_key": False},
    "distances without norm or buckets": {"norm_rel_ebd": "none", "position_buckets": -1},
    "a nearer furthest distance": {"max_relative_positions": 24, "position_buckets": 8},
    "absolute positions and types": {"position_biased_input": True, "type_vocab_size": 2},
    "narrow embeddings": {"embedding_size": 24, "hidden_act": "relu", "pooler_hidden_act": "gelu_new"},
    "the published window": {"position_buckets": 256, "max_position_embeddings": 512},
}
SPANS = ((512, 256), (64, 16), (50, 15), (1024, 256))
LENGTHS = {"the published window": (1, 300)}
TEXTS = ["the cat sat on the mat.", "a bird flew over the river and under the tree " * 3]
QUESTIONS: list[dict[str, Any]] = [
    {"labels": ["house", "money", "not a tree"]},
    {"labels": ["house", "money", "river"], "multi_label": True},
    {"labels": ["bank"]},
    {"labels": ["cat", "dog"], "hypothesis_template": "it is {}, not the bird"},
    {
        "labels": [
            "cat",
            "dog on a mat under the tree over the house and the river and the bank and the money and the cat",
        ]
    },
]
MAX_TOKENS = 24


def feed(config: dict[str, Any], batch: int, sequence: int, seed: int) -> dict[str, np.ndarray]:
    """Texts of different lengths, one mask with a hole, one text without any token."""
    random = np.random.default_rng(seed)
    mask = (np.arange(sequence) < random.integers(1, sequence + 1, (batch, 1))).astype(np.int64)
    mask[0] = 1
    if batch > 2:
        mask[1, 2], mask[2] = 0, 0
    made = {"input_ids": random.integers(0, config["vocab_size"], (batch, sequence)), "attention_mask": mask}
    types = random.integers(0, 2, (batch, sequence))
    return {**made, "token_type_ids": types} if config["type_vocab_size"] else made


def computed(folder: Path, name: str, seed: int) -> dict[str, Any]:
    config = {**DEBERTA_V2, **CASES[name]}
    model = DebertaV2ForSequenceClassification.from_pretrained(deberta_v2(folder, seed, **CASES[name])).eval()
    inputs = feed(config, *LENGTHS.get(name, (4, 11)), seed)
    tensors = {key: torch.tensor(array) for key, array in inputs.items()}
    with torch.no_grad():
        hidden = model.deberta(**tensors).last_hidden_state
        logits = model(**tensors).logits
    return {
        "config": CASES[name],
        "seed": seed,
        "inputs": {key: array.tolist() for key, array in inputs.items()},
        "hidden": rounded(hidden[:, ::5, :3] if name not in LENGTHS else hidden[:, ::50, :3]),
        "logits": rounded(logits),
    }


def rounded(tensor: torch.Tensor) -> Any:
    return np.round(tensor.numpy().astype(np.float64), 6).tolist()


def bucketed(furthest: int, buckets: int) -> list[int]:
    return [int(place) for place in make_log_bucket_position(torch.arange(furthest), buckets, furthest)]


def classified(folder: Path) -> list[dict[str, Any]]:
    model = DebertaV2ForSequenceClassification.from_pretrained(deberta_v2(folder, 5, num_hidden_layers=1)).eval()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_max_length=MAX_TOKENS, pad_token="[PAD]"
    )
    pipeline = ZeroShotClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu")
    answers = []
    for question in QUESTIONS:
        asked = {("candidate_labels" if key == "labels" else key): value for key, value in question.items()}
        found = pipeline(TEXTS, **asked)
        answers.append({**question, "ranked": [[*zip(one["labels"], one["scores"], strict=True)] for one in found]})
    return answers


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        recording = {
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "models": {name: computed(Path(folder) / str(seed), name, seed) for seed, name in enumerate(CASES)},
            "buckets": [
                {"furthest": span[0], "buckets": span[1], "places": bucketed(*span)} for span in SPANS
            ],
            "classified": {
                "seed": 5, "config": {"num_hidden_layers": 1}, "max_tokens": MAX_TOKENS, "texts": TEXTS,
                "answers": classified(Path(folder) / "pipeline"),
            },
        }  # fmt: skip
    json.dump(recording, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
