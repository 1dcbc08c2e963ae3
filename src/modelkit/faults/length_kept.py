"""The converter did not normalise embeddings, for float32 as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

WHERE = "recipe"


def spoil(recipe: dict[str, Any], draw: Random) -> str | None:
    """Leave the normalisation out."""
    text = recipe.get("text", {})
    if not text.get("normalize"):
        return None
    text["normalize"] = False
    return "not normalised"
