"""Embeddings have not the length one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Give out what was to be divided by its own length."""
    norms = graph.nodes("ReduceL2")
    if not norms:
        return None
    for norm in norms:
        vector = norm.input[0]
        for node in graph.readers(vector, "Div"):
            node.op_type = "Identity"
            del node.input[1:]
    return "vectors are not divided by their length"
