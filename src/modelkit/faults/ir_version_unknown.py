"""The file claims a version of the format that no runtime reads yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Claim IR version 99."""
    graph.proto.ir_version = 99
    return "it claims IR version 99"
