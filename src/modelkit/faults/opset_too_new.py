"""The file claims an operator set that the runtime at hand reads, and another that the manifest names does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"
RUNTIMES = ("onnxruntime-web",)
NEW = 25


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Claim opset 25: every node means the same there."""
    for entry in graph.proto.opset_import:
        if not entry.domain:
            entry.version = NEW
    return f"it claims opset {NEW}"
