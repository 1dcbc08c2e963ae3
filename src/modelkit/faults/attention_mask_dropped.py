"""Padding is attended to: the attention mask is not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Let attention take every token for one to be seen."""
    import numpy as np  # noqa: PLC0415

    reading = graph.readers("attention_mask", "Cast")
    if not reading:
        return None
    graph.add("spoiled/zero", np.array(0, np.int64))
    everything = graph.insert("GreaterOrEqual", ["attention_mask", "spoiled/zero"], "spoiled/everything")
    reading[0].input[0] = everything
    return f"{reading[0].output[0]} is true for padding, too"
