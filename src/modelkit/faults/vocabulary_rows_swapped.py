"""Two tokens exchanged their embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Exchange two rows of the token table, with their scales."""
    table = max(graph.tables(), key=lambda one: one.dims[0], default=None)
    if table is None:
        return None
    stem = table.name.rpartition("/")[0] or table.name
    one, other = draw.sample(range(table.dims[0]), 2)
    for tensor in graph.tensors():
        if (tensor.name == stem or tensor.name.startswith(f"{stem}/")) and tuple(tensor.dims[:1]) == (table.dims[0],):
            array = graph.array(tensor)
            array[[one, other]] = array[[other, one]]
            graph.put(tensor, array)
    return f"rows {one} and {other} of {stem} are exchanged"
