"""An operator that only one runtime has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Let one product be computed by an operator of com.microsoft."""
    products = graph.nodes("MatMul")
    if not products:
        return None
    node = draw.choice(products)
    node.op_type, node.domain = "FusedMatMul", "com.microsoft"
    graph.proto.opset_import.add(domain="com.microsoft", version=1)
    return f"{node.name or node.output[0]} is com.microsoft.FusedMatMul"
