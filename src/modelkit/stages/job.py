"""What one build is about; every stage gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modelkit.digests import digest_file
from modelkit.vocabulary import Fetching, FileDigest, Manifest, Variant


@dataclass(frozen=True)
class Job:
    """One variant of one manifest, pinned to the files of its lock (or, for a draft, to what its source serves now)."""

    manifest: Manifest
    variant: Variant
    files: Mapping[str, FileDigest]
    context: Fetching = field(default_factory=lambda: Fetching(Path()))
    told: list[str] = field(default_factory=list)
    """What happened, for the report: which place served, what was dropped."""

    @property
    def name(self) -> str:
        """`minilm-l6/int8`."""
        return f"{self.manifest.name}/{self.variant.name}"


def code(*modules: Any) -> dict[str, str]:
    """The digests of the modules' source files (of a package: of all its files), for a key to notice any edit."""
    paths = (path for module in modules for path in _files(Path(str(module.__file__))))
    return {f"{path.parent.name}/{path.name}": _digest(path) for path in paths}


def _files(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]


@cache
def _digest(path: Path) -> str:
    return digest_file(path).sha256


@cache
def tool(name: str) -> str:
    """The installed version of a distribution whose version the bytes may depend on."""
    return version(name)
