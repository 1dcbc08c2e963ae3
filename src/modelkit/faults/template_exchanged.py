"""Hypotheses are worded otherwise than the manifest says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Let the card have another hypothesis template."""
    path = folder / "modelkit.json"
    card = read_object(path)
    if "hypothesis_template" not in card["options"]:
        return None
    card["options"]["hypothesis_template"] = "{}"
    path.write_text(json.dumps(card), encoding="utf-8")
    return "the hypothesis is the bare label"
