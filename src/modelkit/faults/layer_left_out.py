"""The converter left out the last layer, for float32 as well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "source"
KEYS = ("num_hidden_layers", "num_layers")


def spoil(folder: Path, draw: Random) -> str | None:
    """Count one layer fewer."""
    path = folder / "config.json"
    config = read_object(path)
    changed = [key for key in KEYS if isinstance(config.get(key), int) and config[key] > 1]
    if not changed:
        return None
    config[changed[0]] -= 1
    path.write_text(json.dumps(config), encoding="utf-8")
    return f"{changed[0]} is {config[changed[0]]}"
