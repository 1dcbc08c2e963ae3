"""The output is not the same twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Add a little random noise to the first output."""
    output = graph.graph.output[0].name
    maker = graph.maker(output)
    if maker is None:
        return None
    maker.output[:] = [f"{output}/quiet" if name == output else name for name in maker.output]
    graph.redirect(output, f"{output}/quiet")
    noise = graph.insert("RandomNormalLike", [f"{output}/quiet"], "spoiled/noise", after=f"{output}/quiet", scale=1e-4)
    graph.insert("Add", [f"{output}/quiet", noise], output, after=noise)
    return f"{output} carries noise of 1e-4"
