"""Another activation function stands in the feed-forward layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"
INSTEAD = {"Gelu": "Relu", "QuickGelu": "Relu", "Sigmoid": "HardSigmoid", "Relu": "Abs"}


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Exchange every activation of a kind for a similar one."""
    kind = next((one for one in INSTEAD if graph.nodes(one)), None)
    if kind is None:
        return None
    for node in graph.nodes(kind):
        node.op_type = INSTEAD[kind]
        del node.attribute[:]
    return f"{INSTEAD[kind]} in the place of {kind}"
