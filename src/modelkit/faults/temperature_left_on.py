"""The finished model draws its words where the manifest wants the likeliest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Let the card say temperature 1."""
    path = folder / "modelkit.json"
    card = read_object(path)
    generation = card["options"].get("generation")
    if not generation or generation.get("temperature"):
        return None
    generation["temperature"] = 1.0
    path.write_text(json.dumps(card), encoding="utf-8")
    return "the card says temperature 1"
