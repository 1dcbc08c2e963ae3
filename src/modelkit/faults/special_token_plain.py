"""A special token is text like any other: one that a user types takes effect, one that a model writes is shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Let the first special token be an ordinary one."""
    path = folder / "tokenizer.json"
    tokenizer = read_object(path)
    special = [token for token in tokenizer.get("added_tokens", []) if token.get("special")]
    if not special:
        return None
    token = draw.choice(special)
    token["special"] = False
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return f"{token['content']} is not special"
