"""The learned gain of a normalisation was not loaded: it is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Replace the gain of one LayerNorm or RMSNorm by ones."""
    import numpy as np  # noqa: PLC0415

    gains = [gain for gain in graph.floats(".weight") if len(gain.dims) == 1 and np.ptp(graph.array(gain)) > 0]
    if not gains:
        return None
    gain = draw.choice(gains)
    graph.put(gain, np.ones_like(graph.array(gain)))
    return f"{gain.name} is one"
