"""Integers were rounded to far fewer levels than they have room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Keep the upper bits of every code alone: eight levels of 8 bits, four of 4; of floats three bits."""
    import numpy as np  # noqa: PLC0415

    if not (matrices := graph.matrices()):
        return None
    for matrix in matrices:
        array = graph.array(matrix)
        if array.dtype == np.int8:
            coarse = (array.astype(np.int16) + 128) // 32 * 32 + 16 - 128
        elif array.dtype == np.uint8:
            coarse = (array & 0xCC) | 0x22  # two codes of four bits
        else:
            fraction, exponent = np.frexp(array.astype(np.float64))
            coarse = np.ldexp(np.round(fraction * 8) / 8, exponent)
        graph.put(matrix, coarse)
    return "every matrix is rounded to a few levels"
