"""Chats are written in another model's words."""

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
    """Replace the chat template by one that knows no roles."""
    path = folder / "tokenizer_config.json"
    config = read_object(path)
    if not config.get("chat_template"):
        return None
    config["chat_template"] = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    path.write_text(json.dumps(config), encoding="utf-8")
    return "the chat template knows no roles"
