"""The first checkpoint, downloaded: the source's files from the first place that serves the right bytes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from modelkit import kinds
from modelkit.digests import digest_folder
from modelkit.errors import ArtifactError, SourceError
from modelkit.file_names import listed, without_secrets
from modelkit.stages.job import Job
from modelkit.vocabulary import Choice, Fetching, FileDigest, Source, Wanted

NAME, VERSION, INPUTS = "downloaded", 1, ()

POINTER = b"version https://git-lfs.github.com/spec/v1"
"""How a pointer file begins: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
SHORT = 12
"""Hex digits of a sha256 in a message: enough to compare two by eye."""


@dataclass(frozen=True)
class Served:
    """What came, and from where."""

    place: str
    """As the manifest names it: `hub sentence-transformers/all-MiniLM-L6-v2@1110a24`."""
    identity: str
    """What that resolved to: a full commit, `name==version`, a path or a URL."""
    files: Mapping[str, FileDigest]
    refused: tuple[str, ...] = ()
    """One line per place that was tried before and failed."""


def fetch(source: Source, expected: Mapping[str, FileDigest] | None, into: Path, context: Fetching) -> Served:
    """Fill the empty folder `into` from the first place of `source` that serves the `expected` files.

    With `expected` None (a draft, or the first lock) any bytes will do and the source's patterns say which files.
    Raises `SourceError` with one reason per place if none serves them, `OSError` if `into` cannot be written; nothing
    of a failed place stays behind.
    """
    wanted = Wanted(patterns=source.files, names=tuple(expected or ()))
    failures: list[tuple[str, SourceError]] = []
    for choice in (source.first, *source.mirrors):
        # A place inside `into` is on the same disk, so that a rename moves the files.
        private = Path(tempfile.mkdtemp(dir=into, prefix=".place-"))
        try:
            identity, files = _try(choice, wanted, expected, private, context)
            for entry in sorted(private.iterdir()):
                entry.rename(into / entry.name)
        except SourceError as error:
            failures.append((place_of(choice), error))
        else:
            return Served(place_of(choice), identity, files, tuple(_line(*failure) for failure in failures))
        finally:
            shutil.rmtree(private, ignore_errors=True)
    raise SourceError(
        "; ".join(_line(*failure) for failure in failures),
        # The first place is the one its author meant, so what helps there helps most.
        hint=next((error.hint for _, error in failures if error.hint), None),
    )


def place_of(choice: Choice) -> str:
    """A place in one line, without passwords: kind, what it names, and a short revision if it has one."""
    # The first option of a source is named like its kind.
    named = getattr(choice.options, fields(choice.options)[0].name)
    revision = getattr(choice.options, "revision", None)
    return without_secrets(f"{choice.kind} {named}") + (f"@{revision[:7]}" if revision else "")


def _try(
    choice: Choice, wanted: Wanted, expected: Mapping[str, FileDigest] | None, private: Path, context: Fetching
) -> tuple[str, dict[str, FileDigest]]:
    identity: str = kinds.load("sources", choice.kind).fetch(choice.options, wanted, private, context)
    try:
        files = digest_folder(private)
    except ArtifactError as error:
        raise SourceError(f"left something that is no plain file: {error.message}") from error
    _refuse_pointers(private, files)
    if expected is not None:
        _compare(files, expected, choice)
    return identity, files


def _refuse_pointers(folder: Path, names: Iterable[str]) -> None:
    """Raise `SourceError` for what git-LFS leaves in place of a file whose content was not fetched."""
    for name in names:
        with (folder / name).open("rb") as file:
            found = file.read(len(POINTER))
        if found == POINTER:
            raise SourceError(
                f"{name} is a git-LFS pointer, not the file itself",
                hint="`git lfs pull` in the source fetches the weights and all else that git-LFS keeps",
            )


def _compare(files: Mapping[str, FileDigest], expected: Mapping[str, FileDigest], choice: Choice) -> None:
    """Raise `SourceError` unless there are exactly the expected files with the expected bytes."""
    if missing := sorted(set(expected) - set(files)):
        raise SourceError(f"has no {listed(missing)}")
    if surplus := sorted(set(files) - set(expected)):
        raise SourceError(f"brought {listed(surplus)}, which the lock does not name")
    wrong = sorted(name for name in expected if files[name] != expected[name])
    if not wrong:
        return
    name, others = wrong[0], len(wrong) - 1
    has, wants = files[name], expected[name]
    if has.sha256 == wants.sha256:
        raise SourceError(
            f"{name} has {has.size} bytes, and the lock says {wants.size} with the same sha256",
            hint="the lock was edited; make it anew with `modelkit lock`",
        )
    message = (
        f"{name} has sha256 {has.sha256[:SHORT]}…, expected {wants.sha256[:SHORT]}…"
        f"{f' (and {others} more)' if others else ''}"
    )
    if choice.kind == "hub":
        message += "; the cached copy may be damaged"
        repository = getattr(choice.options, "hub", "")
        raise SourceError(message, hint=f"remove it with `hf cache rm model/{repository}` and run again")
    raise SourceError(message, hint="the bytes are not the ones that were locked; use another place or lock again")


def _line(place: str, error: SourceError) -> str:
    return f"{place}: {error.message}"


def run(job: Job, inputs: Mapping[str, Path], into: Path) -> None:  # noqa: ARG001
    """The stage: exactly the files the job is pinned to."""
    served = fetch(job.manifest.source, job.files, into, job.context)
    job.told.extend(f"{line}; trying the next place" for line in served.refused)
    job.told.append(f"downloaded from {served.place}")


def material(job: Job, inputs: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
    """The bytes alone: which place serves them does not matter."""
    return {"files": {name: [entry.sha256, entry.size] for name, entry in job.files.items()}}
