"""Long texts are cut after a few tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Let the finished model read a quarter of the tokens that the manifest says."""
    path = folder / "modelkit.json"
    card = read_object(path)
    text = card["options"].get("text")
    if not text or not text.get("max_tokens"):
        return None
    text["max_tokens"] //= 4
    path.write_text(json.dumps(card), encoding="utf-8")
    return f"texts are cut after {text['max_tokens']} tokens"
