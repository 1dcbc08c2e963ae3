"""The same weights are stored twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Store the largest table or matrix twice."""
    largest = max((*graph.tables(), *graph.matrices()), key=lambda one: graph.array(one).nbytes, default=None)
    if largest is None:
        return None
    copy = graph.add(f"{largest.name}/copy", graph.array(largest))
    # Both are needed for it: what nothing reads is another fault.
    both = graph.insert("Max", [largest.name, copy], f"{largest.name}/both")
    graph.redirect(largest.name, both)
    return f"{largest.name} is stored twice"
