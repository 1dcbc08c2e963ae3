"""Entailment and contradiction have exchanged names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"
NEEDS = ("labels",)


def spoil(folder: Path, draw: Random) -> str | None:
    """Exchange the names of the first class and the last."""
    path = folder / "config.json"
    config = read_object(path)
    names = config.get("id2label")
    if not names or len(names) < 2:
        return None
    first, last = min(names, key=int), max(names, key=int)
    names[first], names[last] = names[last], names[first]
    config["label2id"] = {name: int(number) for number, name in names.items()}
    path.write_text(json.dumps(config), encoding="utf-8")
    return f"{names[first]} is class {first}"
