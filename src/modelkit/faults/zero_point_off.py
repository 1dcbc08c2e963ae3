"""Activations are quantized around another zero than their products are computed with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"
FEWER = 4


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Quantize around a zero point that is four codes lower."""
    import numpy as np  # noqa: PLC0415

    quantizing = [node for node in graph.nodes("QuantizeLinear") if len(node.input) > 2]
    known = {tensor.name: tensor for tensor in graph.tensors()}
    quantizing = [node for node in quantizing if graph.array(known[node.input[2]]).max() >= FEWER]
    if not quantizing:
        return None
    for node in quantizing:
        name = f"spoiled/{node.input[2]}"
        if name not in known:
            zero = graph.array(known[node.input[2]])
            known[name] = known[node.input[2]]
            graph.add(name, (zero - FEWER).astype(np.uint8))
        node.input[2] = name
    return f"{len(quantizing)} zero points are {FEWER} lower"
