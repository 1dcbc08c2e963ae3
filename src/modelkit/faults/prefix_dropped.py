"""The prefix that a model was trained with is not put before texts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Forget the prefixes of queries and passages."""
    path = folder / "modelkit.json"
    card = read_object(path)
    text = card["options"].get("text", {})
    if not text.get("prefixes"):
        return None
    text["prefixes"] = [[name, ""] for name, _ in text["prefixes"]]
    path.write_text(json.dumps(card), encoding="utf-8")
    return "prefixes are empty"
