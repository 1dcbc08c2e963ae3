"""Two outputs stand in each other's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Exchange the first two outputs."""
    if len(graph.graph.output) < 2:
        return None
    first, second = (type(one).FromString(one.SerializeToString()) for one in graph.graph.output[:2])
    graph.graph.output[0].CopyFrom(second)
    graph.graph.output[1].CopyFrom(first)
    return f"{second.name} comes before {first.name}"
