"""A bias was never written: it is zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Zero one bias."""
    import numpy as np  # noqa: PLC0415

    there = [bias for bias in graph.floats(".bias") if np.abs(graph.array(bias)).max() > 0]
    if not there:
        return None
    bias = draw.choice(there)
    graph.put(bias, np.zeros_like(graph.array(bias)))
    return f"{bias.name} is zero"
