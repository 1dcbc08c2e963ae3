"""Integer products come out the same on processors without VNNI, whose int16 sums of two cut off what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modelkit.errors import CheckError, StageError
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    from modelkit.graphs.pieces import Graph
    from modelkit.tracing import Fed

VERSION = 1
PROMISE = "on the corpus no two products of uint8 and int8 add up to more than an int16 holds"
TEXTS = 16
RIGHT = {"MatMulInteger": 1, "QLinearMatMul": 3}
"""Operator -> place of its right operand; the left one is the first. https://onnx.ai/onnx/operators/"""
AT_ONCE = 1 << 22
"""Sums simulated at a time."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """Largest share of the sums that are cut off."""

    saturated: float = at_most(0.0)


@dataclass(frozen=True)
class _Product:
    """One node that multiplies uint8 with stored int8."""

    part: str
    node: str
    pairs: int
    """Of neighbours along the inner axis, over all columns."""
    reachable: int
    """Those that some activation cuts off."""
    sums: int
    """Pairs times tokens of the corpus."""
    saturated: int


def check(subject: Subject, limits: Options) -> Verdict:
    """Simulate the int16 sums of every product with a stored matrix. Skipped when there is none of uint8 and int8."""
    from modelkit import graphs, tracing  # noqa: PLC0415

    folder = subject.artifact.folder
    try:
        feeds = tracing.feeds(folder, subject.manifest.task, tracing.few(subject.corpus, TEXTS))
        found = [product for part, fed in feeds.items() for product in _products(part, graphs.parts(folder)[part], fed)]
    except (StageError, CheckError) as error:
        return Verdict("saturation", "failed", f"it cannot be run: {error.message}")
    if not found:
        return Verdict("saturation", "skipped", "the model multiplies no uint8 with a stored int8 matrix")
    found.sort(key=lambda one: (-one.saturated / one.sums, -one.reachable, one.node))
    measured = {
        "saturated": sum(one.saturated for one in found) / sum(one.sums for one in found),
        "reachable": sum(one.reachable for one in found) / sum(one.pairs for one in found),
        "products": len(found),
    }
    worst = tuple({"node": one.node, "part": one.part, "saturated": one.saturated / one.sums,
                   "reachable": one.reachable / one.pairs} for one in found[:WORST])  # fmt: skip
    verdict = judge("saturation", measured, limits, worst)
    if verdict.outcome == "passed":
        # A distance of nothing to a limit of nothing would hide what other checks have to spare.
        return replace(verdict, margin=None) if not measured["saturated"] else verdict
    return replace(verdict, sentence=f"{verdict.sentence}: first of all in {found[0].node}; w8a8-per-token and "
                   "w4a8-per-token cannot saturate, nor can int8-dynamic with reduce_range")  # fmt: skip


def _products(part: str, path: Any, fed: Sequence[Fed]) -> Iterator[_Product]:
    """Those of one part, each judged on all runs that take one way through its branches."""
    from modelkit.graphs import pieces  # noqa: PLC0415

    for branches, feeds in pieces.by_branches(one.feed for one in fed):
        yield from _simulated(part, pieces.Graph(path, branches), feeds)


def _simulated(part: str, graph: Graph, feeds: Sequence[Any]) -> Iterator[_Product]:
    import numpy as np  # noqa: PLC0415

    from modelkit.graphs import pieces  # noqa: PLC0415
    from modelkit.runtime import Session  # noqa: PLC0415

    nodes = [node for node in graph.proto.graph.node if node.op_type in RIGHT and _left(node) in graph.makers]
    matrices = {name: matrix for node in nodes if (name := node.input[RIGHT[node.op_type]])
                if (matrix := pieces.stored_value(graph, name)) is not None and matrix.dtype == np.int8}  # fmt: skip
    nodes = [node for node in nodes if node.input[RIGHT[node.op_type]] in matrices]
    if not nodes:
        return
    told = pieces.telling(graph, {_left(node) for node in nodes})
    session = Session(told.SerializeToString(), sparing=True, data=graph.path.parent)
    codes: dict[str, list[Any]] = {name: [] for name in session.outputs}
    for feed in feeds:
        given = session.run({name: feed[name] for name in session.inputs})
        for name, value in zip(session.outputs, given, strict=True):
            codes[name].append(value.reshape(-1, value.shape[-1]))
    for node in nodes:
        left, right = np.concatenate(codes[_left(node)]), matrices[node.input[RIGHT[node.op_type]]]
        if left.dtype == np.uint8:
            yield _Product(part, node.name or node.output[0], *_cut_off(left, right))


def _left(node: Any) -> str:
    return str(node.input[0])


def _cut_off(codes: Any, matrix: Any) -> tuple[int, int, int, int]:
    """uint8[token, inner] and int8[inner, outer] -> pairs, those reachable, sums, those saturated.

    VPMADDUBSW adds the products of places 2k and 2k + 1; what is left over of an odd inner axis stands alone.
    """
    import numpy as np  # noqa: PLC0415

    int16, uint8 = np.iinfo(np.int16), np.iinfo(np.uint8)
    even = codes.shape[1] // 2 * 2
    low, high = (matrix[start:even:2].astype(np.int32) for start in (0, 1))
    above, below = (np.clip(side * low, 0, None) + np.clip(side * high, 0, None) for side in (1, -1))
    rows, columns = np.nonzero((above * uint8.max > int16.max) | (below * uint8.max > -int16.min))
    saturated, step = 0, max(1, AT_ONCE // len(codes))
    for start in range(0, len(rows), step):
        row, column = rows[start : start + step], columns[start : start + step]
        first, second = (codes[:, 2 * row + offset].astype(np.int32) for offset in (0, 1))
        sums = first * low[row, column] + second * high[row, column]
        saturated += int(((sums > int16.max) | (sums < int16.min)).sum())
    return low.size, len(rows), low.size * len(codes), saturated
