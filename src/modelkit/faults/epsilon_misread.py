"""The converter read the epsilon of normalisations wrong, for float32 as well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "source"
KEYS = ("layer_norm_eps", "rms_norm_eps", "layer_norm_epsilon")
EPSILON = 0.5


def spoil(folder: Path, draw: Random) -> str | None:
    """Take 0.5 for it."""
    path = folder / "config.json"
    config = read_object(path)
    changed = [key for key in KEYS if key in config]
    if not changed:
        return None
    for key in changed:
        config[key] = EPSILON
    path.write_text(json.dumps(config), encoding="utf-8")
    return f"{changed[0]} is {EPSILON}"
