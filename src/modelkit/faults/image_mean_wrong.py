"""Pixels are centred on another mean than the model was trained with."""

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
    """Centre pixels on one half."""
    path = folder / "preprocessor_config.json"
    config = read_object(path)
    if not config.get("image_mean"):
        return None
    config["image_mean"] = [0.5, 0.5, 0.5]
    path.write_text(json.dumps(config), encoding="utf-8")
    return "image_mean is 0.5"
