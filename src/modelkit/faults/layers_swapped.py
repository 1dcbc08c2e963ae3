"""Two layers exchanged a matrix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from onnx import TensorProto

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Exchange two matrices that differ in nothing but a number in their name."""
    alike: dict[tuple[str, tuple[int, ...]], list[TensorProto]] = {}
    for matrix in graph.matrices():
        alike.setdefault((re.sub(r"[.]\d+[.]", "..", matrix.name), tuple(matrix.dims)), []).append(matrix)
    rows = [row for _, row in sorted(alike.items()) if len(row) > 1]
    if not rows:
        return None
    one, other = draw.sample(draw.choice(rows), 2)
    first, second = graph.array(one), graph.array(other)
    graph.put(one, second)
    graph.put(other, first)
    return f"{one.name} and {other.name} are exchanged"
