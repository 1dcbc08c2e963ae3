"""The last merges of a BPE tokenizer are missing: words fall apart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Drop the last fifth of the merges."""
    path = folder / "tokenizer.json"
    tokenizer = read_object(path)
    merges = tokenizer.get("model", {}).get("merges")
    if not merges:
        return None
    del merges[len(merges) * 4 // 5 :]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return f"only the first {len(merges)} merges are there"
