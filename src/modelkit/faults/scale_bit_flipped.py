"""One bit of a scale flipped: a high one, of the exponent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Flip one of the upper exponent bits of one scale of a matrix; of a weight where there are no scales."""
    import numpy as np  # noqa: PLC0415

    there = graph.scales() or [matrix for matrix in graph.matrices() if graph.array(matrix).dtype.kind == "f"]
    if not there:
        return None
    tensor = draw.choice(there)
    array = graph.array(tensor)
    bits = array.reshape(-1).view(np.uint16 if array.itemsize == 2 else np.uint32)
    # The two lowest exponent bits change a column by a factor of 2 or 4: a model may shrug that off.
    place, bit = draw.randrange(bits.size), draw.randrange(12, 15) if array.itemsize == 2 else draw.randrange(25, 31)
    bits[place] ^= bits.dtype.type(1 << bit)
    graph.put(tensor, array)
    return f"bit {bit} of value {place} of {tensor.name} is flipped"
