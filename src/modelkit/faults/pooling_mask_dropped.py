"""Padding is averaged into the embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Let the mean take every token for one that counts."""
    import numpy as np  # noqa: PLC0415

    reading = [node for node in graph.readers("attention_mask", "Cast") if "pooling" in node.output[0]]
    if not reading:
        return None
    graph.add("spoiled/zero", np.array(0, np.int64))
    reading[0].input[0] = graph.insert("GreaterOrEqual", ["attention_mask", "spoiled/zero"], "spoiled/everything")
    return "padding counts in the mean"
