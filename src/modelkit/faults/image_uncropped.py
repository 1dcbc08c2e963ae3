"""Images are squeezed where they should be cropped."""

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
    """Leave out the crop to the centre."""
    path = folder / "preprocessor_config.json"
    config = read_object(path)
    if not config.get("do_center_crop"):
        return None
    edge = config["size"].get("shortest_edge") if isinstance(config.get("size"), dict) else config.get("size")
    config["do_center_crop"] = False
    config["size"] = {"height": edge, "width": edge}
    path.write_text(json.dumps(config), encoding="utf-8")
    return "images are squeezed to a square"
