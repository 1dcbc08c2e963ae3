"""The nouns every other module speaks in: frozen dataclasses, standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "excused", "skipped", "errored"]
"""`failed` is a broken promise, `excused` one that the manifest knows of; `errored`: the check itself could not run."""

UNCHANGED = "fp32"
"""The scheme of a variant that names none."""
WHOLE = "model"
"""The name of the one part of a model that has no parts."""

Progress = Callable[[str, int, int | None], None]
"""Called as `progress(what, done_bytes, total_bytes_or_None)` while something long is under way."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file something stands; lines and columns count from 1."""

    path: Path
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One module of a shelf, by its kind, with that module's own `Options`."""

    kind: str
    options: Any


@dataclass(frozen=True, slots=True)
class Source:
    """Where the weights come from. Mirrors are tried in order after the first place fails or serves other bytes."""

    first: Choice
    mirrors: tuple[Choice, ...] = ()
    files: tuple[str, ...] = ()
    """Patterns of the wanted files, relative to the source; `*` stays inside one folder."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which files a source shall yield: exact names when a lock knows them, else everything the patterns match."""

    patterns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def _silent(what: str, done: int, total: int | None) -> None:
    """Shows no progress."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """What a source needs to know about the run it serves."""

    base: Path
    """Folder of the manifest; relative paths start here."""
    offline: bool = False
    progress: Progress = _silent


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One graph input or output: ONNX element type (`float32`) and shape; a named axis may have any length."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """What the graph takes and gives, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """One artifact to be made from the manifest's model."""

    name: str
    scheme: Choice
    channel: str
    budget: int | None = None
    """Largest allowed total of the finished folder's model files, in bytes."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Check kind -> that check's `Options`; checks that are not named use their standard."""


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A failing check that is excused until a day; strict: if it passes, or the day is over, that fails."""

    variant: str
    check: str
    because: str
    until: date
    place: Place = field(compare=False)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One model as its author declares it."""

    path: Path
    name: str
    license: str
    task: Choice
    source: Source
    export: Choice
    signatures: Mapping[str, Signature]
    """Part -> what its graph takes and gives; a model that has no parts is one called `model`."""
    variants: Mapping[str, Variant]
    runtimes: tuple[str, ...] = ("onnxruntime",)
    """Where the artifacts have to run."""
    known_failures: tuple[KnownFailure, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict, repr=False, compare=False)
    """Dotted key, such as `variants.int8.budget` -> where it stands in the file."""

    def place(self, key: str) -> Place:
        """Where `key` stands; for a key the author left out, where its nearest parent stands."""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, Place(self.path))


@dataclass(frozen=True, slots=True)
class FileDigest:
    """Content of one file: sha256 in lower-case hex, size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A pure step of a build: the same key gives the same bytes."""

    name: str
    key: str
    material: Mapping[str, Any]
    """Everything the key is the digest of: versions, options, input digests, tools."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A folder of files with one digest over all of them, and the chain of stages that made it."""

    folder: Path
    digest: str
    files: Mapping[str, FileDigest]
    chain: tuple[Stage, ...] = ()
    reused: bool = False
    """True when the last stage was found in the store and nothing was made."""

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. Only JSON built-ins inside, because it crosses processes and ends in files."""

    check: str
    outcome: Outcome
    sentence: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    margin: float | None = None
    """Distance to the nearest limit as a share of it (0.1: a tenth to spare, negative: broken)."""
    worst: tuple[Mapping[str, Any], ...] = ()
    """The worst cases, worst first."""
    reused: bool = False
    """True when the verdict was recorded earlier for exactly these bytes."""


@dataclass(frozen=True)
class Subject:
    """What a check gets to look at."""

    manifest: Manifest
    variant: Variant
    artifact: Artifact
    """The finished folder under test."""
    reference: Artifact
    """The same model in float32, before quantization; loads like a finished folder."""
    source: Artifact
    """The files that it was all made from, as they were downloaded."""
    corpus: tuple[Mapping[str, str], ...]
    """Rows of `conformance/corpora/<task>.jsonl`: `id`, `text`, `group`."""
    open: Callable[..., Any]
    """`open(artifact, threads=None)`: the artifact as the object `modelkit.model.load` gives; one per thread count."""
    outputs: Callable[[Artifact], Any]
    """What `outputs` of the task's object gives for the whole corpus: float32[rows, width], in corpus order; computed
    once per artifact and kept in the store."""
    again: Callable[[], Mapping[str, FileDigest]]
    """Builds the artifact once more from `source`, taking nothing from the store: the digests of what comes out."""
    siblings: Callable[[], Mapping[str, Artifact]]
    """Builds what is missing of the manifest's other variants: name -> finished artifact."""
    examples: int = 0
    """How many examples a check that searches (one with `EXAMPLES`) shall try."""
