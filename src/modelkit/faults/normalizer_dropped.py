"""Text reaches the tokenizer as it is: no lower case, no Unicode form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Take the normalizer away."""
    path = folder / "tokenizer.json"
    tokenizer = read_object(path)
    if not tokenizer.get("normalizer"):
        return None
    tokenizer["normalizer"] = None
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return "the tokenizer has no normalizer"
