"""Attention scores are not divided by the root of the heads' width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Multiply the scores of every layer by one."""
    import numpy as np  # noqa: PLC0415

    scaling = [node for node in graph.nodes("Div", "Mul") if _is_scaling(graph, node)]
    if not scaling:
        return None
    graph.add("spoiled/one", np.array(1, np.float32))
    for node in scaling:
        node.input[1] = "spoiled/one"
    return f"scores are not scaled in {len(scaling)} places"


def _is_scaling(graph: Surgery, node: Any) -> bool:
    maker = graph.maker(node.input[0])
    return (
        maker is not None
        and maker.op_type == "MatMul"
        and any(one.name == node.input[1] and not one.dims for one in graph.tensors())
    )
