"""Attention by distance: T5's buckets (Raffel et al. 2019, arXiv:1910.10683, section 2.1), near ones exact, far ones in
logarithmic steps."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs.blocks import Blocks


def bucket(distance: int, count: int, farthest: int, *, both_ways: bool) -> int:
    """The bucket, 0 to `count` - 1, of a key that stands `distance` places after its query.

    `both_ways` gives half of the buckets to keys after the query; otherwise all of those share bucket 0.
    In whole numbers: the logarithm in float32 that others take rounds differently from machine to machine.
    """
    if both_ways:
        after = count // 2 if distance > 0 else 0
        return after + bucket(-abs(distance), count // 2, farthest, both_ways=False)
    back, exact = max(-distance, 0), count // 2
    if back < exact:
        return back
    steps = count - exact
    # The largest step with exact * (farthest / exact) ** (step / steps) <= back.
    reached = (step for step in range(steps - 1, 0, -1)
               if back**steps * exact**step >= farthest**step * exact**steps)  # fmt: skip
    return exact + next(reached, 0)


def position_bias(
    blocks: Blocks, name: str, queries: ir.Value, keys: ir.Value, shape: tuple[int, int, int], *, both_ways: bool
) -> ir.Value:
    """What distance adds to the scores: int64[queries], int64[keys] -> float32[1, heads, queries, keys].

    `shape` is (buckets, farthest distance, heads); `name` is the attention that holds the table for its whole stack.
    """
    tape, (count, farthest, heads) = blocks.tape, shape
    if not 1 <= count // (4 if both_ways else 2) < farthest:
        raise StageError(
            f"config.json: {count} buckets do not reach to a distance of {farthest}",
            hint="correct config.json; fetch the source again",
        )
    table = blocks.table(f"{name}.relative_attention_bias", count, heads)
    # Every distance beyond the farthest shares its bucket.
    by_distance = [bucket(n, count, farthest, both_ways=both_ways) for n in range(-farthest, farthest + 1)]
    stored = tape.weight(f"{name}.buckets", np.array(by_distance, np.int64))
    rows = tape.node(f"{name}.queries", "Unsqueeze", queries, tape.ints(1))
    distance = tape.node(f"{name}.distance", "Sub", keys, rows)
    near = tape.node(
        f"{name}.near", "Clip", distance, tape.constant(-farthest, np.int64), tape.constant(farthest, np.int64)
    )
    index = tape.node(f"{name}.index", "Add", near, tape.constant(farthest, np.int64))
    places = tape.node(f"{name}.places", "Gather", stored, index)
    per_head = tape.node(f"{name}.per_head", "Gather", table, places)
    turned = tape.node(f"{name}.turned", "Transpose", per_head, perm=[2, 0, 1])
    return tape.node(f"{name}.position_bias", "Unsqueeze", turned, tape.ints(0))
