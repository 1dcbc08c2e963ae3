"""One scale for a whole batch, where every token should have its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Take the largest magnitude of everything in the batch for every token's."""
    peaks = [node for node in graph.nodes("ReduceMax") if node.output[0].endswith("/peak")]
    if not peaks:
        return None
    for node in peaks:
        del node.input[1:]
    return f"{len(peaks)} scales are those of the whole batch"
