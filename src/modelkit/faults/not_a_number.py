"""A NaN among the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Put one NaN into a stored float tensor."""
    there = graph.scales() or [matrix for matrix in graph.matrices() if graph.array(matrix).dtype.kind == "f"]
    if not there:
        return None
    tensor = draw.choice(there)
    array = graph.array(tensor)
    place = draw.randrange(array.size)
    array.reshape(-1)[place] = float("nan")
    graph.put(tensor, array)
    return f"value {place} of {tensor.name} is NaN"
