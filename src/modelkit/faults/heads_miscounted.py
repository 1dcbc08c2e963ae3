"""The converter read the number of attention heads wrong, for float32 as well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "source"
KEYS = ("num_attention_heads", "num_heads", "num_key_value_heads")


def spoil(folder: Path, draw: Random) -> str | None:
    """Halve the number of heads, wherever a config keeps it."""
    path = folder / "config.json"
    config = read_object(path)
    changed = [key for key in KEYS if isinstance(config.get(key), int) and config[key] % 2 == 0]
    if not changed:
        return None
    for key in changed:
        config[key] //= 2
    path.write_text(json.dumps(config), encoding="utf-8")
    return f"{changed[0]} is {config[changed[0]]}"
