"""The converter pooled in another way than the manifest says, for float32 as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

WHERE = "recipe"
INSTEAD = {"mean": "cls", "cls": "mean"}


def spoil(recipe: dict[str, Any], draw: Random) -> str | None:
    """Take the first token for the mean, or the mean for the first token."""
    text = recipe.get("text", {})
    if text.get("pooling") not in INSTEAD:
        return None
    text["pooling"] = INSTEAD[text["pooling"]]
    return f"pooled by {text['pooling']}"
