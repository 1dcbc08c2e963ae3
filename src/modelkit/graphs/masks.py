"""Which token may look at which: positions, causality, and what is added to the scores of attention for both."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelkit.graphs.tape import Tape

LOWEST = float(np.finfo(np.float32).min)
"""Added to the score of a masked position, as transformers does."""


def length(tape: Tape, name: str, x: ir.Value) -> ir.Value:
    """How long the second axis of `x` is, int64[1]: the tokens of int64[batch, sequence]."""
    return tape.node(name, "Shape", x, start=1, end=2)


def counted(tape: Tape, name: str, start: ir.Value, end: ir.Value) -> ir.Value:
    """int64[end - start], counting up from `start`; both are int64[1]."""
    first, last = (tape.node(f"{name}/{part}", "Squeeze", value) for part, value in (("start", start), ("end", end)))
    return tape.node(name, "Range", first, last, tape.constant(1, np.int64))


def not_later(tape: Tape, name: str, keys: ir.Value, queries: ir.Value) -> ir.Value:
    """int64[keys] and int64[queries], both positions -> bool[queries, keys]: a key is not later than its query."""
    upright = tape.node(f"{name}/upright", "Unsqueeze", queries, tape.ints(1))
    return tape.node(name, "LessOrEqual", keys, upright)


def bias(tape: Tape, name: str, seen: ir.Value) -> ir.Value:
    """bool -> float32 of the same shape: 0 where a query may look, `LOWEST` where it may not."""
    return tape.node(name, "Where", seen, tape.constant(0.0, np.float32), tape.constant(LOWEST, np.float32))


def causal_bias(tape: Tape, ids: ir.Value, mask: ir.Value) -> ir.Value:
    """int64[batch, sequence] and int64[batch, total_sequence] -> float32[batch, 1, sequence, total_sequence].

    A token sees itself and what stands before it, in the cache too, as far as `mask` keeps it. A row of padding sees
    nothing: all its scores sink alike, and what comes out is finite and read by nobody.
    """
    total = length(tape, "mask/total", mask)
    past = tape.node("mask/past", "Sub", total, length(tape, "mask/length", ids))
    keys = counted(tape, "mask/keys", tape.ints(0), total)
    causal = not_later(tape, "mask/causal", keys, counted(tape, "mask/queries", past, total))
    kept = tape.node("mask/kept", "Cast", mask, to=ir.DataType.BOOL)
    kept = tape.node("mask/kept/everywhere", "Unsqueeze", kept, tape.ints(1, 2))
    return bias(tape, "mask/bias", tape.node("mask/seen", "And", kept, causal))
