"""An output declares another width than it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Let the first output declare one column more."""
    shape = graph.graph.output[0].type.tensor_type.shape
    if not shape.dim[-1].dim_value:
        return None
    shape.dim[-1].dim_value += 1
    return f"{graph.graph.output[0].name} declares a width of {shape.dim[-1].dim_value}"
