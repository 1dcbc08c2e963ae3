"""Two layers get each other's keys from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Exchange the cached keys of the first layer with those of the last when they are read."""
    keys = [one.name for one in graph.graph.input if one.name.startswith("past_key_values") and one.name.endswith("key")
            and "encoder" not in one.name]  # fmt: skip
    if len(keys) < 2:
        return None
    first, last = keys[0], keys[-1]
    graph.redirect(first, "spoiled/between")
    graph.redirect(last, first)
    graph.redirect("spoiled/between", last)
    return f"{first} and {last} are exchanged"
