"""Every token is taken for its right neighbour: position tables are one row off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from modelkit.graphs.surgery import Surgery

WHERE = "graph"


def spoil(graph: Surgery, draw: Random) -> str | None:
    """Move the rows of every table of positions or distances by one."""
    import numpy as np  # noqa: PLC0415

    tables = [one for one in graph.tensors() if re.search("position|rel_embeddings|relative_attention_bias", one.name)
              and len(one.dims) > 1]  # fmt: skip
    if not tables:
        return None
    for table in tables:
        graph.put(table, np.roll(graph.array(table), 1, axis=0))
    return f"{', '.join(table.name for table in tables)}: every row is one off"
