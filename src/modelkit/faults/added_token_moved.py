"""An added token got another id."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Exchange the ids of two added tokens."""
    path = folder / "tokenizer.json"
    tokenizer = read_object(path)
    added = tokenizer.get("added_tokens", [])
    if len(added) < 2:
        return None
    one, other = draw.sample(added, 2)
    one["content"], other["content"] = other["content"], one["content"]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return f"{one['content']} and {other['content']} have exchanged ids"
