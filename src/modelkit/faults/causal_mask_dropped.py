"""A decoder sees the tokens that come after."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Let every query see every key."""
    hiding = graph.nodes("LessOrEqual")
    if not hiding:
        return None
    for node in hiding:
        seen = node.output[0]
        node.output[0] = f"{seen}/before"
        graph.insert("Not", [f"{seen}/before"], f"{seen}/not", after=f"{seen}/before")
        graph.insert("Or", [f"{seen}/before", f"{seen}/not"], seen, after=f"{seen}/not")
    return f"{len(hiding)} causal masks hide nothing"
