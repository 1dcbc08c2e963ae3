"""Texts of the committed corpus, and what a session is fed for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench.processes import HERE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

CORPUS = HERE / "conformance" / "corpora" / "feature-extraction.jsonl"
MAX_TOKENS = 256

ONE_BY_ONE, IN_BATCHES, BATCH = 48, 64, 32
"""Texts of a timed round, one by one and in batches of the third."""


def corpus() -> list[str]:
    """All texts, in the file's order: lengths are mixed, so batches of neighbours are padded."""
    return [json.loads(line)["text"] for line in CORPUS.read_text("utf-8").split("\n") if line]


def spread(count: int) -> list[str]:
    """`count` texts, evenly over the corpus."""
    texts = corpus()
    return [texts[number * len(texts) // count] for number in range(count)]


def feeds(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> list[dict[str, Any]]:
    """Inputs of MiniLM's graph for batches of `size` neighbours, each padded to its longest text."""
    import numpy as np  # noqa: PLC0415

    tokenizer.enable_truncation(MAX_TOKENS)
    made = []
    for start in range(0, len(texts), size):
        tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        batch = tokenizer.encode_batch(list(texts[start : start + size]))
        ids, mask = (np.array([getattr(one, name) for one in batch], np.int64) for name in ("ids", "attention_mask"))
        made.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
    return made
