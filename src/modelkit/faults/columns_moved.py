"""A weight matrix was written one column off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Move the columns of one matrix by one."""
    import numpy as np  # noqa: PLC0415

    if not (matrices := graph.matrices()):
        return None
    matrix = draw.choice(matrices)
    graph.put(matrix, np.roll(graph.array(matrix), 1, axis=-1))
    return f"the columns of {matrix.name} are moved by one"
