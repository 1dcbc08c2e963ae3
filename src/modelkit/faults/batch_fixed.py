"""The graph was traced with a batch of one, and takes no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Declare the first axis of every input and output to be one."""
    for one in (*graph.graph.input, *graph.graph.output):
        if one.type.tensor_type.shape.dim:
            one.type.tensor_type.shape.dim[0].dim_value = 1
    return "every input and output declares a batch of one"
