"""The file claims an operator set that lacks its operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"
OLD = 12


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Claim opset 12."""
    for entry in graph.proto.opset_import:
        if not entry.domain:
            entry.version = OLD
    return f"it claims opset {OLD}"
