"""Disentangled attention (He et al. 2020, arXiv:2006.03654): contents score each other, and their distances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.graphs.blocks import Blocks
from modelkit.graphs.masks import LOWEST
from modelkit.graphs.tape import Tape


@dataclass(frozen=True)
class Span:
    """How distances become rows of the table of distances, which has `2 * rows` of them.

    `buckets` of them when there are any, else one for each distance up to `furthest`.
    """

    furthest: int
    buckets: int = 0

    @property
    def rows(self) -> int:
        """Half of the table's rows."""
        return self.buckets if self.buckets > 0 else self.furthest

    def row(self, distance: int) -> int:
        """The row of the table for a query that stands `distance` tokens after its key."""
        place = self._bucket(abs(distance)) if self.buckets > 0 else abs(distance)
        return min(max(self.rows + (place if distance > 0 else -place), 0), 2 * self.rows - 1)

    def _bucket(self, distance: int) -> int:
        """Near distances keep a bucket each, far ones share them by their logarithm (arXiv:2111.09543's code)."""
        middle = self.buckets // 2
        if distance <= middle:
            return distance
        share = math.log(distance / middle) / math.log((self.furthest - 1) / middle)
        return math.ceil(share * (middle - 1)) + middle


@dataclass(frozen=True)
class Distances:
    """What all layers share: the table, which of its rows a text's distances take, and the numbers that skew scores."""

    table: ir.Value
    """float32[2 * span.rows, width]"""
    behind: ir.Value
    """int64[2 * sequence]: the rows for the distances sequence - 1, sequence - 2, ..., -sequence."""
    ahead: ir.Value
    """int64[2 * sequence]: the rows for the negatives of those."""
    length: ir.Value
    """int64[1]: sequence"""
    start: ir.Value
    """int64[1]: how many scores `skewed` leaves out at the front ..."""
    end: ir.Value
    """int64[1]: ... and where it stops"""
    square: ir.Value
    """int64[4]: [0, 0, sequence, -1]"""


def distances(tape: Tape, table: ir.Value, input_ids: ir.Value, span: Span) -> Distances:
    """Rows of `table` for every distance in a text of `input_ids`' length, however long: the last row serves the rest.

    The bucket of each distance is stored (a few kilobytes) and not computed: a float32 logarithm that differs between
    processors in its last bit would move a distance into another bucket.
    """
    rows = tape.constant([span.row(distance) for distance in range(-span.furthest, span.furthest + 1)], np.int64)
    one, zero = tape.ints(1), tape.ints(0)
    length = tape.node("distances/length", "Shape", input_ids, start=1, end=2)
    last = tape.node("distances/last", "Sub", length, one)
    twice = tape.node("distances/twice", "Add", length, length)
    size = tape.node("distances/size", "Squeeze", twice, zero)
    counted = tape.node("distances/counted", "Range", tape.constant(0, np.int64), size, tape.constant(1, np.int64))
    behind = tape.node("distances/behind", "Sub", last, counted)
    ahead = tape.node("distances/ahead", "Neg", behind)
    lowest, highest = (tape.constant(edge, np.int64) for edge in (-span.furthest, span.furthest))

    def looked_up(name: str, distance: ir.Value) -> ir.Value:
        near = tape.node(f"{name}/near", "Clip", distance, lowest, highest)
        return tape.node(f"{name}/rows", "Gather", rows, tape.node(f"{name}/index", "Add", near, highest))

    kept = tape.node("distances/kept", "Mul", length, tape.node("distances/odd", "Sub", twice, one))
    return Distances(
        table,
        looked_up("distances/behind", behind),
        looked_up("distances/ahead", ahead),
        length,
        start=last,
        end=tape.node("distances/end", "Add", last, kept),
        square=tape.node("distances/square", "Concat", tape.ints(0, 0), length, tape.ints(-1), axis=0),
    )


def skewed(tape: Tape, name: str, scores: ir.Value, shared: Distances) -> ir.Value:
    """float32[batch, heads, sequence, 2 * sequence] -> [batch, heads, sequence, sequence].

    Row i loses its first `sequence - 1 - i` columns: the scores by distance become scores by position. Read with a
    row length that is one less, each row begins one column earlier than the one above. That is two copies, where
    GatherElements would look up every score by an int64 index of the scores' own shape.
    """
    flat = tape.node(f"{name}/flat", "Reshape", scores, tape.ints(0, 0, -1))
    flat = tape.node(f"{name}/moved", "Slice", flat, shared.start, shared.end, tape.ints(2))
    turned = tape.node(f"{name}/turned", "Reshape", flat, shared.square)
    return tape.node(f"{name}/skewed", "Slice", turned, tape.ints(0), shared.length, tape.ints(3))


def kept_pairs(tape: Tape, mask: ir.Value) -> ir.Value:
    """int64[batch, sequence] -> bool[batch, 1, sequence, sequence]: where both tokens are kept.

    The reference masks rows too, so that a padding token looks at all others alike.
    """
    kept = tape.node("mask/kept", "Cast", mask, to=ir.DataType.BOOL)
    keys = tape.node("mask/keys", "Unsqueeze", kept, tape.ints(1, 2))
    return tape.node("mask/pairs", "And", keys, tape.node("mask/queries", "Unsqueeze", kept, tape.ints(1, 3)))


@dataclass(frozen=True)
class Attention:
    """One layer's attention; `terms` are "c2p" (a content asks for a distance) and "p2c" (a distance for a content)."""

    blocks: Blocks
    name: str
    heads: int
    width: int
    terms: tuple[str, ...]
    shared_keys: bool
    """Whether distances go through the projections of the contents."""

    def mixed(self, hidden: ir.Value, pairs: ir.Value, shared: Distances | None) -> ir.Value:
        """float32[batch, sequence, width] -> the same, before the output's projection."""
        tape, name = self.blocks.tape, self.name
        query, key, value = (
            self._heads(self.blocks.linear(hidden, f"{name}.{part}_proj", self.width, self.width), part)
            for part in ("query", "key", "value")
        )
        # Scaled before the product, so that it costs a vector per token and not a score per pair.
        query = self._scaled(query, "query")
        turned = tape.node(f"{name}/key/turned", "Transpose", key, perm=[0, 1, 3, 2])
        scores = tape.node(f"{name}/content", "MatMul", query, turned)
        if shared is not None:
            for term in self._terms(query, key, shared):
                scores = tape.node(f"{term.name}/added", "Add", scores, term)
        masked = tape.node(f"{name}/masked", "Where", pairs, scores, tape.constant(LOWEST, np.float32))
        shares = tape.node(f"{name}/shares", "Softmax", masked, axis=-1)
        joined = tape.node(f"{name}/mixed", "MatMul", shares, value)
        joined = tape.node(f"{name}/joined/transposed", "Transpose", joined, perm=[0, 2, 1, 3])
        return tape.node(f"{name}/joined", "Reshape", joined, tape.ints(0, 0, self.width))

    def _terms(self, query: ir.Value, key: ir.Value, shared: Distances) -> list[ir.Value]:
        tape, found = self.blocks.tape, []
        if "c2p" in self.terms:
            name = f"{self.name}/c2p"
            by_distance = tape.node(name, "MatMul", query, self._distance_heads("key", shared.behind, shared))
            found.append(skewed(tape, name, by_distance, shared))
        if "p2c" in self.terms:
            name = f"{self.name}/p2c"
            rows = self._scaled(self._distance_heads("query", shared.ahead, shared), "distance_query")
            by_key = skewed(tape, name, tape.node(name, "MatMul", key, rows), shared)
            found.append(tape.node(f"{name}/by_query", "Transpose", by_key, perm=[0, 1, 3, 2]))
        return found

    def _distance_heads(self, part: str, rows: ir.Value, shared: Distances) -> ir.Value:
        """The projected rows of the table: float32[heads, width / heads, 2 * sequence].

        The whole table is projected and then looked up: a runtime that folds constants does the former once.
        """
        tape, name = self.blocks.tape, f"{self.name}/distance_{part}"
        found = tape.node(f"{name}/rows", "Gather", self._projected(shared.table, part), rows)
        split = tape.node(name, "Reshape", found, tape.ints(0, *self._shape))
        return tape.node(f"{name}/transposed", "Transpose", split, perm=[1, 2, 0])

    def _projected(self, table: ir.Value, part: str) -> ir.Value:
        blocks, name = self.blocks, f"{self.name}.{part}_proj"
        if not self.shared_keys:
            return blocks.linear(table, f"{self.name}.pos_{part}_proj", self.width, self.width)
        product = blocks.tape.node(f"{name}/distances/product", "MatMul", table, blocks.stored[f"{name}.weight"])
        return blocks.tape.node(f"{name}/distances", "Add", product, blocks.parameter(f"{name}.bias", self.width))

    @property
    def _shape(self) -> tuple[int, int]:
        return self.heads, self.width // self.heads

    def _heads(self, x: ir.Value, part: str) -> ir.Value:
        name = f"{self.name}/{part}"
        split = self.blocks.tape.node(name, "Reshape", x, self.blocks.tape.ints(0, 0, *self._shape))
        return self.blocks.tape.node(f"{name}/transposed", "Transpose", split, perm=[0, 2, 1, 3])

    def _scaled(self, x: ir.Value, part: str) -> ir.Value:
        scale = math.sqrt(self.width // self.heads * (1 + len(self.terms)))
        return self.blocks.tape.node(
            f"{self.name}/{part}/scaled", "Div", x, self.blocks.tape.constant(scale, np.float32)
        )
