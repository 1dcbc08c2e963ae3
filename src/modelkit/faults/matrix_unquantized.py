"""One matrix was left in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Store one matrix in float32 and turn it into integers at run time: the same values, more bytes."""
    import numpy as np  # noqa: PLC0415

    packed = [one for one in graph.matrices() if graph.array(one).dtype.kind in "iu"
              and any(one.name in node.input for node in graph.graph.node)]  # fmt: skip
    if not packed:
        return None
    matrix = draw.choice(packed)
    name, kind = f"{matrix.name}/float32", matrix.data_type
    graph.add(name, graph.array(matrix).astype(np.float32))
    integers = graph.insert("Cast", [name], f"{matrix.name}/cast", to=kind)
    graph.redirect(matrix.name, integers)
    graph.graph.initializer.remove(matrix)
    return f"{matrix.name} is stored in float32"
