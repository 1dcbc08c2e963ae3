"""The inputs that models are measured on: one JSON object with `id`, `text` and `group` per line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from modelkit import kinds
from modelkit.errors import CheckError
from modelkit.vocabulary import Manifest, Place

FEWEST = 20
"""Texts in a corpus: with fewer, ten neighbours are most of the others and their overlap says nothing."""


def path_of(manifest: Manifest) -> Path:
    """The inputs of the manifest's task: the project's own corpus if it has one, else the one modelkit ships."""
    name = f"corpora/{manifest.task.kind}.jsonl"
    if path := _found(manifest, name):
        return path
    raise CheckError(f"no corpus for the task {manifest.task.kind}", hint=f"write one at conformance/{name}")


def _found(manifest: Manifest, name: str) -> Path | None:
    package = Path(__file__).parent
    project = kinds.project_of(manifest.path)
    # The second is where a wheel carries it, the third where a checkout has it.
    shipped = [package / name, package.parents[1] / "conformance" / name]
    places = [*([project / "conformance" / name] if project else []), *shipped]
    return next((path for path in places if path.exists()), None)


def rows(manifest: Manifest) -> tuple[tuple[dict[str, str], ...], str]:
    """The rows of the task's corpus and the sha256 of their file, read once for a whole run.

    Raises `CheckError` naming the line that is no row, or when there are too few.
    """
    return _read(path_of(manifest))


def labelled(manifest: Manifest) -> tuple[tuple[dict[str, str], ...], str] | None:
    """The same of the texts of known topics, whose `group` is the topic; None where there are none."""
    path = _found(manifest, f"corpora/labelled/{manifest.task.kind}.jsonl")
    return _read(path) if path else None


def calibration(manifest: Manifest) -> tuple[tuple[dict[str, str], ...], str]:
    """The same of the texts that a scheme looks at and no check scores."""
    name = f"corpora/calibration/{manifest.task.kind}.jsonl"
    if path := _found(manifest, name):
        return _read(path)
    raise CheckError(
        f"no texts to calibrate on for the task {manifest.task.kind}",
        hint=f"write some at conformance/{name}, or leave smoothing and rounding out",
    )


def spread(corpus: Sequence[Mapping[str, str]], count: int) -> list[Mapping[str, str]]:
    """`count` rows (all of them, if there are no more) evenly from the shortest text to the longest."""
    ordered = sorted(corpus, key=lambda row: (len(row["text"]), row["id"]))
    if len(ordered) <= count:
        return ordered
    return [ordered[n * (len(ordered) - 1) // max(count - 1, 1)] for n in range(count)]


def shorter(corpus: Sequence[Mapping[str, str]], count: int) -> list[Mapping[str, str]]:
    """`count` rows evenly over the shorter half: what long texts show, short ones show sooner."""
    ordered = spread(corpus, len(corpus))
    return spread(ordered[: max(count, (len(ordered) + 1) // 2)], count)


@cache
def _read(path: Path) -> tuple[tuple[dict[str, str], ...], str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckError(f"cannot be read ({error.strerror})", where=path, hint="make it a file of texts") from error
    found = tuple(_row(line, Place(path, number)) for number, line in enumerate(content.split(b"\n"), 1) if line)
    if len(found) < FEWEST:
        raise CheckError(f"has {len(found)} texts", where=path, hint=f"write at least {FEWEST}")
    if twice := [name for name, count in Counter(row["id"] for row in found).items() if count > 1]:
        raise CheckError(f"has the id {twice[0]!r} more than once", where=path, hint="give every text its own")
    return found, sha256(content).hexdigest()


def _row(line: bytes, place: Place) -> dict[str, str]:
    try:
        row = json.loads(line)
        # Half of a surrogate pair is no character, and a number has no length.
        str.encode(row["text"])
        return {key: str(row[key]) for key in ("id", "text", "group")}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckError(
            f"is no row of a corpus ({type(error).__name__}: {error})",
            where=place,
            hint='write {"id": ..., "text": ..., "group": ...}',
        ) from error
