"""A folder on this machine, relative to the manifest's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelkit import containers, file_names
from modelkit.vocabulary import Fetching, Wanted


@dataclass(frozen=True)
class Options:
    """Where the folder is; `~` is the home folder."""

    path: str


def fetch(options: Options, wanted: Wanted, into: Path, context: Fetching) -> str:
    """Copy the wanted files to `into`; the identity is the path as the manifest has it, the same on every machine.

    Raises `SourceError` if the folder or a wanted file is missing or cannot be read.
    """
    place = (context.base / Path(options.path).expanduser()).resolve()
    with containers.folder(place) as found:
        for name in file_names.select(wanted, found.sizes):
            containers.copy(found, name, into / name, name, context.progress)
    return options.path
