"""The epsilon of normalisations was read wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"
EPSILON = 0.5


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Set every epsilon to 0.5, as if a default of another framework's had been taken."""
    import numpy as np  # noqa: PLC0415

    changed = 0
    for node in graph.nodes("LayerNormalization"):
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f, changed = EPSILON, changed + 1
    for node in graph.nodes("Sqrt"):
        # The root mean square of RMSNorm: Sqrt(mean + epsilon).
        floored = graph.maker(node.input[0])
        if floored is not None and floored.op_type == "Add":
            name = f"spoiled/epsilon/{changed}"
            graph.add(name, np.array(EPSILON, np.float32))
            floored.input[1], changed = name, changed + 1
    return f"{changed} normalisations have the epsilon {EPSILON}" if changed else None
