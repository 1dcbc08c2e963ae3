"""Images are resized by taking the nearest pixel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"
NEEDS = ("images",)


def spoil(folder: Path, draw: Random) -> str | None:
    """Let images be resized without a filter."""
    path = folder / "preprocessor_config.json"
    config = read_object(path)
    if config.get("resample") is None:
        return None
    config["resample"] = 0
    path.write_text(json.dumps(config), encoding="utf-8")
    return "resample is 0, the nearest pixel"
