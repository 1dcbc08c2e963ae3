"""Rotary positions turn at another speed: the base was read wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Let every rotary frequency but the first be a fifth smaller."""
    found = next((one for one in graph.tensors() if one.name == "rotary/frequencies"), None)
    if found is None:
        return None
    array = graph.array(found)
    array.reshape(-1)[1:] *= 0.8
    graph.put(found, array)
    return "rotary frequencies are a fifth smaller"
