"""With a cache, every new token is placed one too far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Add one to positions as soon as something is in the cache."""
    import numpy as np  # noqa: PLC0415

    cache = next((one.name for one in graph.graph.input if one.name.startswith("past_key_values")), None)
    if cache is None or not graph.readers("position_ids"):
        return None
    graph.add("spoiled/zeros", np.array([0], np.int64))
    length = graph.insert("Shape", [cache], "spoiled/length", start=2, end=3)
    some = graph.insert("Greater", [length, "spoiled/zeros"], "spoiled/some", after=length)
    one = graph.insert("Cast", [some], "spoiled/one", after=some, to=7)
    moved = graph.insert("Add", ["position_ids", one], "spoiled/positions", after=one)
    graph.redirect("position_ids", moved)
    return "positions are one too large when there is a cache"
