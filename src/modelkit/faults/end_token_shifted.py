"""Generation ends at another token than the model's own."""

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
    """Move every end-of-text id by one."""
    changed = 0
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        config = read_object(path)
        if isinstance(end := config.get("eos_token_id"), int):
            config["eos_token_id"], changed = end + 1, changed + 1
        elif end:
            config["eos_token_id"], changed = [one + 1 for one in end], changed + 1
        else:
            continue
        path.write_text(json.dumps(config), encoding="utf-8")
    return "eos_token_id is one too large" if changed else None
