"""Folders, zip and tar archives, read the same way: a list of names, and one file copied out at a time.

Nothing is ever extracted under a name or through a link that an archive chose: the caller says which name goes where.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from modelkit.errors import SourceError
from modelkit.vocabulary import Progress

CHUNK = 1 << 20
# What the readers raise for damaged bytes; RuntimeError: a password is needed; NotImplementedError: rare compression.
READ_ERRORS = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError)


@dataclass(frozen=True)
class Container:
    """Something that holds files: name -> size in bytes, and a way to open one for reading."""

    sizes: Mapping[str, int]
    open: Callable[[str], IO[bytes]]


def copy(container: Container, name: str, target: Path, label: str, progress: Progress) -> None:
    """Copy the file `name` to `target`; progress and messages call it `label`.

    Raises `SourceError` if it cannot be read, `OSError` if it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    done, total = 0, container.sizes[name]
    with _reading(label):
        source = container.open(name)
    with source, target.open("wb") as out:
        while chunk := _read(source, label):
            out.write(chunk)
            done += len(chunk)
            progress(label, done, total)
    if done != total:
        raise SourceError(f"'{label}' is cut short: {done} of {total} bytes", hint="fetch it again")


@contextmanager
def folder(path: Path) -> Iterator[Container]:
    """A folder with everything below it; links to files are followed, for a hub cache consists of them.

    Raises `SourceError` if there is no such folder.
    """
    if not path.is_dir():
        raise SourceError(
            f"the folder {path} does not exist" if not path.exists() else f"{path} is not a folder",
            hint="the path is relative to the manifest's folder",
        )
    yield Container(dict(_below(path)), lambda name: (path / name).open("rb"))


@contextmanager
def archive(path: Path, kind: str) -> Iterator[Container]:
    """An archive of `kind` 'zip' or 'tar' (compressed or not). Raises `SourceError` if it is damaged."""
    with _reading("the archive"):
        opened = zipfile.ZipFile(path) if kind == "zip" else tarfile.open(path)  # noqa: SIM115  closed by the next line
    with opened:
        yield _zip(opened) if isinstance(opened, zipfile.ZipFile) else _tar(opened)


def _zip(opened: zipfile.ZipFile) -> Container:
    entries = {entry.filename: entry for entry in opened.infolist() if not entry.is_dir()}

    def open_entry(name: str) -> IO[bytes]:
        # zip keeps a link as a file that holds the target's name: as a model file that is only ever an accident.
        if stat.S_ISLNK(entries[name].external_attr >> 16):
            raise SourceError(f"'{name}' in the archive is a link", hint="pack the file itself")
        return opened.open(entries[name])

    return Container({name: entry.file_size for name, entry in entries.items()}, open_entry)


def _tar(opened: tarfile.TarFile) -> Container:
    with _reading("the archive"):
        # './config.json' is how tar writes 'config.json'.
        entries = {entry.name.removeprefix("./"): entry for entry in opened.getmembers() if not entry.isdir()}

    def open_entry(name: str) -> IO[bytes]:
        # Links and devices are refused wherever they lead; extractfile would follow a link inside the archive.
        stream = opened.extractfile(entries[name]) if entries[name].isreg() else None
        if stream is None:
            raise SourceError(f"'{name}' in the archive is a link or a device", hint="pack the file itself")
        return stream

    return Container({name: entry.size for name, entry in entries.items()}, open_entry)


def _below(path: Path) -> Iterator[tuple[str, int]]:
    for parent, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            full = Path(parent, file)
            # A dangling link has no size and is not a file.
            if full.is_file():
                yield full.relative_to(path).as_posix(), full.stat().st_size


def _read(source: IO[bytes], label: str) -> bytes:
    with _reading(label):
        return source.read(CHUNK)


@contextmanager
def _reading(label: str) -> Iterator[None]:
    try:
        yield
    except READ_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SourceError(f"{label} cannot be read: {reason or type(error).__name__}", hint="fetch it again") from error
