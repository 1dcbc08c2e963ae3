"""Every node by itself: from exact inputs the artifact's makes, column by column, what the float32 model's makes.

A whole model hides what happens to one column of one layer, or to a token that no text of the corpus has. Here each
piece of the artifact runs alone, on values of the float32 model, and tables are read from their first row to the
last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelkit import corpora
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    from modelkit.graphs.pieces import Graph, Piece
    from modelkit.tracing import Fed

VERSION = 1
PROMISE = "every node of the artifact makes of exact inputs, column by column, nearly what the float32 model's makes"
TEXTS = 4
AT_ONCE = 4096
"""Rows of a table that are read at a time."""
FEWER, WHOLE = 6, 32
"""Bits of a weight: more than the first has an 8-bit matrix with its scales, and a 4-bit one has fewer; float32's."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """Largest error of a column of an activation, and of a row of a table, relative to the whole: anywhere, where at
    least 6 bits are stored for a weight, and where no fewer bytes are stored than in float32."""

    column_max: float = at_most(0.6)
    column_max_8bit: float = at_most(0.2)
    column_max_32bit: float = at_most(0.01)
    row_max: float = at_most(0.5)
    row_max_8bit: float = at_most(0.1)


@dataclass(frozen=True)
class Far:
    """The column, or the row of a table, that is farthest from the float32 model's."""

    part: str
    value: str
    place: int
    error: float
    """Root mean square of the differences there, divided by that of all the value's numbers."""
    is_row: bool
    bits: float
    """Stored for a weight, with its scales."""


def check(subject: Subject, limits: Options) -> Verdict:
    """Run each piece of every part alone. Skipped when the two models have no value in common by name."""
    from modelkit import graphs, tracing  # noqa: PLC0415
    from modelkit.errors import CheckError, StageError  # noqa: PLC0415
    from modelkit.graphs import pieces  # noqa: PLC0415

    texts = [row["text"] for row in corpora.spread(_short(subject), TEXTS)]
    theirs, ours = (graphs.parts(one.folder) for one in (subject.reference, subject.artifact))
    found: list[Far] = []
    for part, fed in tracing.feeds(subject.reference.folder, subject.manifest.task, texts).items():
        branches = tracing.branches(fed[0].feed)
        reference, artifact = pieces.Graph(theirs[part], branches), pieces.Graph(ours[part], branches)
        try:
            if not {*reference.makers} & {*artifact.makers}:
                return Verdict(
                    "nodes", "skipped", f"the artifact's {part} keeps no name of a value of the float32 model"
                )
            # A later step of a decoder takes the other branch of its graph; it is another graph by then.
            runs = [one for one in fed if tracing.branches(one.feed) == branches]
            found += [_far(part, *one) for one in _compared(reference, artifact, runs)]
        except (StageError, CheckError) as error:
            return Verdict("nodes", "failed", f"a node of the {part} does not run alone: {error.message}")
    found.sort(key=lambda one: (-one.error, one.value))
    if wrong := [one for one in found if one.error == float("inf")]:
        return Verdict("nodes", "failed", f"{wrong[0].value} is not finite, or has another shape ({len(wrong)} such)")
    measured = {
        "column_max": max((one.error for one in found if not one.is_row), default=0.0),
        "column_max_8bit": max((one.error for one in found if not one.is_row and one.bits > FEWER), default=0.0),
        "column_max_32bit": max((one.error for one in found if not one.is_row and one.bits >= WHOLE), default=0.0),
        "row_max": max((one.error for one in found if one.is_row), default=0.0),
        "row_max_8bit": max((one.error for one in found if one.is_row and one.bits > FEWER), default=0.0),
        "nodes": len(found),
    }
    worst = tuple({"node": one.value, "part": one.part, "row" if one.is_row else "column": one.place,
                   "error": round(one.error, 6)} for one in found[:WORST])  # fmt: skip
    return judge("nodes", measured, limits, worst)


def _short(subject: Subject) -> list[Mapping[str, str]]:
    """The shorter half: what long texts show of a node, short ones show sooner."""
    ordered = sorted(subject.corpus, key=lambda row: (len(row["text"]), row["id"]))
    return ordered[: max(TEXTS, len(ordered) // 2)]


def _compared(reference: Graph, artifact: Graph, runs: list[Fed]) -> Iterator[tuple[Piece, list[Any], list[Any], bool]]:
    """Each piece with what it makes and what it should, and whether that is all rows of a table."""
    from modelkit.graphs import pieces  # noqa: PLC0415

    found = pieces.pieces(reference, artifact)
    types = pieces.types_of(reference)
    tables = {piece.value: rows for piece in found if (rows := pieces.rows_of(reference, piece))}
    others = [piece for piece in found if piece.value not in tables]
    told = {name for piece in others for name in (*piece.reads, piece.value) if name not in reference.inputs}
    values: list[Mapping[str, Any]] = []
    if told:
        session = _session(pieces.telling(reference, told), reference)
        names = list(session.outputs)
        values = [
            {**dict(zip(names, session.run(_fitting(session, one.feed)), strict=True)), **one.feed} for one in runs
        ]
    for piece in found:
        small = _session(pieces.alone(artifact, piece, types), artifact)
        if piece.value in tables:
            exact = _session(pieces.original(reference, piece, types), reference)
            yield piece, [_rows(small, tables[piece.value])], [_rows(exact, tables[piece.value])], True
        else:
            made = [small.run(_fitting(small, known))[0] for known in values]
            yield piece, made, [known[piece.value] for known in values], False


def _session(model: Any, graph: Graph) -> Any:
    from modelkit.runtime import Session  # noqa: PLC0415

    return Session(model.SerializeToString(), sparing=True, data=graph.path.parent)


def _fitting(session: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: known[name] for name in session.inputs}


def _rows(session: Any, count: int) -> Any:
    """Every row of a table, float32[count, width]."""
    import numpy as np  # noqa: PLC0415

    parts = []
    for start in range(0, count, AT_ONCE):
        ids = np.arange(start, min(start + AT_ONCE, count), dtype=np.int64)[None]
        parts.append(session.run(dict.fromkeys(session.inputs, ids))[0][0])
    return np.concatenate(parts)


def _far(part: str, piece: Piece, made: list[Any], exact: list[Any], is_table: bool) -> Far:
    import numpy as np  # noqa: PLC0415

    bits = WHOLE * piece.stored_bytes / piece.float_bytes if piece.float_bytes else WHOLE
    if any(
        np.shape(one) != np.shape(other) or not np.isfinite(one).all() for one, other in zip(made, exact, strict=True)
    ):
        return Far(part, piece.value, 0, float("inf"), is_table, bits)
    # Where the last axis is a length, as of attention's scores, there are no columns: all is one.
    width = np.shape(exact[0])[-1] if len({np.shape(one)[-1] for one in exact}) == 1 else 1
    ours, theirs = (np.concatenate([np.reshape(one, (-1, width)) for one in row]) for row in (made, exact))
    axis = 1 if is_table else 0
    errors = ((ours.astype(np.float64) - theirs) ** 2).mean(axis)
    place = int(errors.argmax())
    whole = float((theirs.astype(np.float64) ** 2).mean())
    error = float(np.sqrt(errors[place] / whole)) if whole else float(errors[place] > 0)
    return Far(part, piece.value, place, error, is_table, bits)
