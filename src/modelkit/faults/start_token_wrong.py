"""A decoder starts from another token than it was trained with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"
NEEDS = ("text",)


def spoil(folder: Path, draw: Random) -> str | None:
    """Move the first id of the decoder by five."""
    changed = 0
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        config = read_object(path)
        if isinstance(start := config.get("decoder_start_token_id"), int):
            config["decoder_start_token_id"], changed = start + 5, changed + 1
            path.write_text(json.dumps(config), encoding="utf-8")
    return "decoder_start_token_id is five too large" if changed else None
