"""The mean over the tokens became their sum, or the first token the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Pool over the tokens in another way than the manifest says."""
    pooling = [node for node in graph.nodes("ReduceSum") if node.output[0].startswith("pooling/sum")]
    if pooling:
        pooling[0].op_type = "ReduceMax"
        return "the largest values of the tokens in the place of their sum"
    return None
