"""Every node by itself: from exact inputs the artifact's makes, column by column, what the float32 model's makes.

A whole model hides what happens to one column of one layer, or to a token that no text of the corpus has. Here each
piece of the artifact runs alone, on values of the float32 model, and tables are read from their first row to the
last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelkit.errors import CheckError, StageError
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    from modelkit.graphs.pieces import Graph, Piece
    from modelkit.tracing import Fed

VERSION = 3
PROMISE = (
    "every node that reads whole inputs makes of exact values, column by column, nearly what the float32 model's makes"
)
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


class _BrokenError(Exception):
    """Why the artifact's own nodes cannot be run."""


def check(subject: Subject, limits: Options) -> Verdict:
    """Run each piece of every part alone. Skipped when the two models have no value in common by name; of several parts
    one that has none fails beside one that has.

    Raises `CheckError` when the float32 model cannot be run, no text reaches a part, or something is no number there.
    """
    found: list[Far] = []
    strange: list[str] = []
    feeds, parts = _feeds(subject), [*subject.manifest.signatures]
    for part in parts:
        if not (fed := feeds.get(part, [])):
            raise CheckError(f"no text of the corpus reaches {part}", hint="add one to the corpus")
        try:
            far = _of_part(part, subject, fed)
        except _BrokenError as error:
            return Verdict("nodes", "failed", str(error))
        if far is None:
            strange.append(part)
        else:
            found += far
    if strange:
        told = f"the artifact's {strange[0]} keeps no name of a value of the float32 model"
        return Verdict("nodes", "skipped" if strange == parts else "failed", told)
    return _judged(found, limits)


def _of_part(part: str, subject: Subject, fed: list[Fed]) -> list[Far] | None:
    """What the pieces of `part` make; None where the two graphs have no value in common by name."""
    from modelkit import graphs  # noqa: PLC0415
    from modelkit.graphs import pieces  # noqa: PLC0415

    theirs, ours = (graphs.parts(one.folder) for one in (subject.reference, subject.artifact))
    if part not in ours:
        raise _BrokenError(f"the artifact has no {part}")
    branches = pieces.branches(fed[0].feed)
    reference, artifact = pieces.Graph(theirs[part], branches), pieces.Graph(ours[part], branches)
    with _of_artifact(part):
        kept = {*artifact.makers}
    if not kept & {*reference.makers}:
        return None
    # A later step of a decoder takes the other branch of its graph; it is another graph by then.
    runs = [one for one in fed if pieces.branches(one.feed) == branches]
    return [_far(part, *one) for one in _compared(part, reference, artifact, runs)]


def _judged(found: list[Far], limits: Options) -> Verdict:
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


def _feeds(subject: Subject) -> dict[str, list[Fed]]:
    """Part -> what the task feeds it for a few texts, recorded on the float32 model."""
    from modelkit import tracing  # noqa: PLC0415

    try:
        return tracing.feeds(subject.reference.folder, subject.manifest.task, tracing.few(subject.corpus, TEXTS))
    except StageError as error:
        raise CheckError(f"the float32 model cannot be run: {error.message}", hint=error.hint) from error


@contextmanager
def _of_artifact(part: str) -> Iterator[None]:
    """What goes wrong inside is what is to be found, and no reason to find nothing."""
    try:
        yield
    except (StageError, CheckError) as error:
        raise _BrokenError(f"the artifact's {part}: {error.message}") from error


def _compared(
    part: str, reference: Graph, artifact: Graph, runs: list[Fed]
) -> Iterator[tuple[Piece, list[Any], list[Any], bool]]:
    """Each piece with what it makes and what it should, and whether that is all rows of a table."""
    from modelkit.graphs import pieces  # noqa: PLC0415

    with _of_artifact(part):
        found = pieces.pieces(reference, artifact)
    if strange := sorted({name for piece in found for name in piece.reads} - {*reference.inputs, *reference.makers}):
        raise _BrokenError(f"the artifact's {part} reads {strange[0]}, which the float32 model does not have")
    types = pieces.types_of(reference)
    tables = {piece.value: rows for piece in found if (rows := pieces.rows_of(reference, piece))}
    others = [piece for piece in found if piece.value not in tables]
    values = _told(reference, others, runs)
    for piece in found:
        with _of_artifact(part):
            small = _session(pieces.alone(artifact, piece, types), artifact)
            made = (
                [_rows(small, tables[piece.value])]
                if piece.value in tables
                else [small.run(_fitting(small, known))[0] for known in values]
            )
        if piece.value in tables:
            exact = _session(pieces.original(reference, piece, types), reference)
            yield piece, made, [_rows(exact, tables[piece.value])], True
        else:
            yield piece, made, [known[piece.value] for known in values], False


def _told(reference: Graph, found: list[Piece], runs: list[Fed]) -> list[Mapping[str, Any]]:
    """For each run, the float32 model's value of everything that the pieces read and make, and what was fed."""
    from modelkit.graphs import pieces  # noqa: PLC0415

    told = {name for piece in found for name in (*piece.reads, piece.value) if name not in reference.inputs}
    if not told:
        return []
    session = _session(pieces.telling(reference, told), reference)
    return [{**dict(zip(session.outputs, session.run(_fitting(session, one.feed)), strict=True)), **one.feed}
            for one in runs]  # fmt: skip


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
    far = Far(part, piece.value, 0, float("inf"), is_table, bits)
    if any(np.shape(one) != np.shape(other) for one, other in zip(made, exact, strict=True)):
        return far
    # Where the last axis is a length, as of attention's scores, there are no columns: all is one.
    ends = {np.shape(one)[-1:] for one in exact}
    width = (*ends.pop(), 1)[0] if len(ends) == 1 else 1
    ours, theirs = (np.concatenate([np.reshape(one, (-1, width)) for one in row]) for row in (made, exact))
    if np.isnan(theirs).any():
        raise CheckError(f"the float32 model's own {piece.value} is not a number", hint="look at the weights")
    # Masks are made of infinity: where float32 has it, it is right.
    masked = np.isinf(theirs) & (ours == theirs)
    ours, theirs = (np.where(masked, 0, one).astype(np.float64) for one in (ours, theirs))
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return far
    errors = ((ours - theirs) ** 2).mean(1 if is_table else 0)
    place = int(errors.argmax())
    whole = float((theirs**2).mean())
    error = float(np.sqrt(errors[place] / whole)) if whole else float(errors[place] > 0)
    return Far(part, piece.value, place, error, is_table, bits)
