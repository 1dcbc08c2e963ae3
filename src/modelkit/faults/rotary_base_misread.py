"""The converter took another base for rotary positions, for float32 as well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "source"


def spoil(folder: Path, draw: Random) -> str | None:
    """Take a hundredth of the base."""
    path = folder / "config.json"
    config = read_object(path)
    if "rope_theta" not in config:
        return None
    config["rope_theta"] /= 100
    path.write_text(json.dumps(config), encoding="utf-8")
    return f"rope_theta is {config['rope_theta']}"
