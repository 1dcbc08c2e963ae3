"""Which node makes an artifact differ from its float32 model: each is put, alone, in the place of the original.

The float32 model runs with one value replaced by what the artifact's nodes make of the same inputs. How far that moves
the output is this piece's own share of the error, whatever the others do. Replacing one site of computation at a time
is the intervention of causal tracing (Meng et al. 2022, arXiv:2202.05262), here on rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from modelkit import corpora, graphs, runtime, tracing
from modelkit.errors import CheckError
from modelkit.vocabulary import Artifact, Manifest

if TYPE_CHECKING:
    from modelkit.graphs.pieces import Piece

TEXTS = 6
MOST = 64
"""Pieces whose share is measured: those of the largest error of their own."""

UNUSUAL = 4
"""Times the median: in clean MiniLM artifacts the largest own error is 2.3 times the median in int8, 1.8 in int4."""


@dataclass(frozen=True)
class Finding:
    """One piece of the artifact and what it does to the output."""

    part: str
    value: str
    """The value it computes, by the name that both graphs have for it."""
    kind: str
    """The operator that computes it in the float32 model."""
    weights: tuple[str, ...]
    """The stored tensors it stands for, by their names in the float32 model."""
    own: float
    """Relative error (root of the squares' sums' ratio) of the value, computed by the artifact from exact inputs."""
    output: float
    """Relative error of the model's output when nothing but this piece is the artifact's."""
    share: float
    """Of the sum of all pieces' squared output errors."""
    to_8bit: int | None
    """Additional bytes if its weights had 8 bits; None when they have no fewer, or there are none."""
    to_float32: int | None
    """Additional bytes if its weights were float32; None when it has none."""


@dataclass(frozen=True)
class Report:
    """Findings, the largest share first, and the error that all pieces make together."""

    findings: tuple[Finding, ...]
    pieces: int
    """How many pieces the two graphs compute otherwise."""
    total: float
    """Relative error of the artifact's output; of several parts, the largest."""
    usual: float
    """The median of what all pieces make wrong of exact inputs, those too whose effect on the output is not told."""

    @property
    def suspects(self) -> tuple[Finding, ...]:
        """Findings whose own error no rounding explains: many times that of most others; the largest first."""
        unusual = (one for one in self.findings if one.own > UNUSUAL * self.usual)
        return tuple(sorted(unusual, key=lambda one: -one.own))


def bisect(
    manifest: Manifest,
    reference: Artifact,
    artifact: Artifact,
    workspace: Path,
    progress: Callable[[str, int, int | None], None],
    rows: Sequence[Mapping[str, str]] | None = None,
) -> Report:
    """Rank what `artifact` computes otherwise than `reference`, by what it does to the outputs of `rows`: by default
    `TEXTS` shorter ones of the corpus.

    `workspace` is an empty folder. Raises `CheckError` when the two have no value in common
    by name, or the float32 model cannot be run.
    """
    rows = corpora.shorter(corpora.rows(manifest)[0], TEXTS) if rows is None else rows
    found: list[Finding] = []
    errors: list[float] = []
    total = 0.0
    feeds = tracing.feeds(reference.folder, manifest.task, [row["text"] for row in rows])
    runtime.give_back_memory()  # of the sessions that recorded them
    for part, fed in feeds.items():
        pair = _Pair(part, reference, artifact, fed, workspace / part)
        of_part, own = pair.findings(progress)
        found, errors, total = found + of_part, errors + own, max(total, pair.total())
    ranked = sorted(found, key=lambda one: (-one.output, -one.own, one.value))
    weights = _weights([one.output for one in ranked])
    return Report(tuple(map(_with_share, ranked, weights)), len(errors), total, median(errors) if errors else 0.0)


def _weights(outputs: Sequence[float]) -> list[float]:
    """Each one's share of all squares; beside what is not finite, nothing else counts."""
    squares = [error**2 for error in outputs]
    if any(map(math.isinf, squares)):
        squares = [float(math.isinf(one)) for one in squares]
    return [one / (sum(squares) or 1.0) for one in squares]


def _with_share(finding: Finding, share: float) -> Finding:
    return replace(finding, share=share)


class _Pair:
    """One part in both forms."""

    def __init__(
        self, part: str, reference: Artifact, artifact: Artifact, fed: list[tracing.Fed], workspace: Path
    ) -> None:
        from modelkit.graphs import pieces  # noqa: PLC0415

        self.part = part
        workspace.mkdir()
        self.branches = pieces.branches(fed[0].feed)
        # A later step of a decoder takes the other branch of its graph; it is another graph by then.
        self.fed = [one for one in fed if pieces.branches(one.feed) == self.branches]
        self._reference = pieces.Graph(graphs.parts(reference.folder)[part], self.branches)
        self._path = pieces.apart(graphs.parts(artifact.folder)[part], workspace)
        runtime.give_back_memory()  # of the model that was whole
        self._artifact = pieces.Graph(self._path, self.branches)
        self._pieces = pieces.pieces(self._reference, self._artifact)
        if not set(self._reference.makers) & set(self._artifact.makers):
            raise CheckError(
                f"the artifact's {part} has no value whose name the float32 model knows",
                hint="use a scheme that keeps the names of values",
            )

    def findings(self, progress: Callable[[str, int, int | None], None]) -> tuple[list[Finding], list[float]]:
        """The pieces with the largest errors of exact inputs, share still open; and those errors of every piece."""
        from modelkit.graphs import pieces  # noqa: PLC0415

        if not self._pieces:
            return [], []
        session = self._switchable()
        types = pieces.types_of(self._reference)
        own = []
        for number, piece in enumerate(self._pieces):
            progress(f"{self.part}: what each piece makes of exact inputs", number, len(self._pieces))
            own.append((self._own(session, piece, types), piece))
        own.sort(key=lambda one: -one[0])
        found = []
        for number, (error, piece) in enumerate(own[:MOST]):
            progress(f"{self.part}: what each piece does to the output", number, min(MOST, len(own)))
            found.append(self._finding(piece, error, self._output(session, piece, types)))
        return found, [error for error, _ in own]

    def total(self) -> float:
        """Relative error of the artifact's output."""
        session = runtime.Session(self._path, sparing=True)
        return _relative((session.run(one.feed, [one.output])[0], one.exact) for one in self.fed)

    def _switchable(self) -> runtime.Session:
        from modelkit.graphs import pieces  # noqa: PLC0415

        return _session(pieces.switchable(self._reference, self._pieces), self._reference.path)

    def _off(self, session: runtime.Session, types: Mapping[str, int]) -> dict[str, Any]:
        """No value replaced."""
        import numpy as np  # noqa: PLC0415
        import onnx  # noqa: PLC0415

        from modelkit.graphs.pieces import CHOSEN, GIVEN  # noqa: PLC0415

        values = [name.removesuffix(CHOSEN) for name in session.inputs if name.endswith(CHOSEN)]
        nothing = {value + GIVEN: np.zeros((), onnx.helper.tensor_dtype_to_np_dtype(types[value])) for value in values}
        return {**nothing, **{value + CHOSEN: np.zeros((), np.bool_) for value in values}}

    def _made(self, session: runtime.Session, piece: Piece, types: Mapping[str, int]) -> Iterator[tuple[Any, Any]]:
        """For each feed what the artifact's piece makes of the reference's values, and the reference's own."""
        from modelkit.graphs import pieces  # noqa: PLC0415

        small = _session(pieces.alone(self._artifact, piece, types), self._path)
        computed = [name for name in piece.reads if name not in self._reference.inputs]
        off = self._off(session, types)
        for feed in (one.feed for one in self.fed):
            values = dict(zip([*computed, piece.value], session.run({**off, **feed}, [*computed, piece.value]),
                              strict=True))  # fmt: skip
            given = {name: feed[name] if name in feed else values[name] for name in small.inputs}
            yield small.run(given)[0], values[piece.value]

    def _own(self, session: runtime.Session, piece: Piece, types: Mapping[str, int]) -> float:
        return _relative(self._made(session, piece, types))

    def _output(self, session: runtime.Session, piece: Piece, types: Mapping[str, int]) -> float:
        import numpy as np  # noqa: PLC0415

        from modelkit.graphs.pieces import AFTER, CHOSEN, GIVEN  # noqa: PLC0415

        off, pairs = self._off(session, types), []
        for one, (made, _) in zip(self.fed, self._made(session, piece, types), strict=True):
            name = one.output + AFTER if one.output + AFTER in session.outputs else one.output
            change = {piece.value + CHOSEN: np.ones((), np.bool_), piece.value + GIVEN: made}
            pairs.append((session.run({**off, **one.feed, **change}, [name])[0], one.exact))
        return _relative(pairs)

    def _finding(self, piece: Piece, own: float, output: float) -> Finding:
        elements = piece.float_bytes // 4
        packed = bool(piece.weights) and piece.stored_bytes < 0.8 * elements
        return Finding(
            part=self.part,
            value=piece.value,
            kind=piece.kind,
            weights=piece.weights,
            own=own,
            output=output,
            share=0.0,
            to_8bit=elements - piece.stored_bytes if packed else None,
            to_float32=piece.float_bytes - piece.stored_bytes if piece.weights else None,
        )


def _session(model: Any, origin: Path) -> runtime.Session:
    """A session of `model`, whose large tensors are in the data files beside `origin`."""
    return runtime.Session(model.SerializeToString(), sparing=True, data=origin.parent)


def _relative(pairs: Any) -> float:
    """Root of the summed squares of the differences, divided by that of the exact values."""
    import numpy as np  # noqa: PLC0415

    difference = exact = 0.0
    for pair in pairs:
        ours, theirs = (np.asarray(one, np.float64) for one in pair)
        if ours.shape != theirs.shape or not np.isfinite(ours).all():
            return float("inf")
        difference, exact = difference + float(((ours - theirs) ** 2).sum()), exact + float((theirs**2).sum())
    return float(np.sqrt(difference / exact)) if exact else float(difference > 0)
