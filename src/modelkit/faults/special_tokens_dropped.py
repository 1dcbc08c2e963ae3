"""No special tokens stand around a text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Take the post-processor away."""
    path = folder / "tokenizer.json"
    tokenizer = read_object(path)
    if "Template" not in json.dumps(tokenizer.get("post_processor")) and "Bert" not in json.dumps(
        tokenizer.get("post_processor")
    ):
        return None
    tokenizer["post_processor"] = None
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return "the tokenizer adds no special tokens"
