"""An output has not the name that consumers ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Give the last output another name."""
    output = graph.graph.output[-1]
    name = f"{output.name}_0"
    graph.insert("Identity", [output.name], name, after=output.name)
    told, output.name = output.name, name
    return f"{told} is called {name}"
