"""The file carries a tensor that nothing reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Store one more tensor, as large as the largest table or matrix."""
    import numpy as np  # noqa: PLC0415

    largest = max((*graph.tables(), *graph.matrices()), key=lambda one: graph.array(one).nbytes, default=None)
    if largest is None:
        return None
    graph.add("spoiled/unused", np.ones_like(graph.array(largest)))
    return f"a tensor as large as {largest.name} is read by nothing"
