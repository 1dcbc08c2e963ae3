"""A quarter of a weight matrix was never written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Zero the last quarter of one matrix."""
    if not (matrices := graph.matrices()):
        return None
    matrix = draw.choice(matrices)
    array = graph.array(matrix)
    flat = array.reshape(-1)
    flat[-(flat.size // 4) :] = 0
    graph.put(matrix, array)
    return f"the last quarter of {matrix.name} is zero"
