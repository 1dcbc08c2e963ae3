"""The files beside the model are the ones that belong to it: the source's, the manifest's, and sums of just these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from modelkit.digests import digest_file
from modelkit.errors import StageError
from modelkit.json_objects import read_object
from modelkit.vocabulary import Subject, Verdict

VERSION = 1
PROMISE = "the files beside the model are the source's own, the card says what the manifest says, the sums are theirs"
CARD, SUMS = "modelkit.json", "SHA256SUMS"


@dataclass(frozen=True)
class Options:
    """No limits."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Compare every file of the finished folder but the model's own with what it was made from."""
    problems = [*_of_source(subject), *_card(subject), *_sums(subject.artifact.folder)]
    measured = {"files": len(_beside(subject.artifact.folder))}
    if problems:
        return Verdict("companions", "failed", "; ".join(problems), measured)
    return Verdict("companions", "passed", f"{measured['files']} files beside the model, as they should be", measured)


def _beside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and ".onnx" not in path.name)


def _of_source(subject: Subject) -> Iterator[str]:
    """A file that the source has is the source's; one that was made while converting is as it was made."""
    for path in _beside(subject.artifact.folder):
        own = next((place for made in (subject.source, subject.reference)
                    if (place := made.folder / path.name).is_file()), None)  # fmt: skip
        if own is None and path.name != SUMS:
            yield f"{path.name} comes from nowhere"
        elif own is not None and path.name != CARD and own.read_bytes() != path.read_bytes():
            yield f"{path.name} is not the source's{_different(own, path)}"
    for path in _beside(subject.reference.folder):
        if not (subject.artifact.folder / path.name).is_file():
            yield f"{path.name} is missing"


def _different(own: Path, path: Path) -> str:
    """The first key of two JSON objects whose values differ, in words; nothing where there is no such key."""
    try:
        theirs, ours = (json.loads(one.read_text(encoding="utf-8")) for one in (own, path))
    except ValueError:
        return ""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return ""
    keys = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    return f" ({keys[0]} differs)" if keys else ""


def _card(subject: Subject) -> Iterator[str]:
    path, task = subject.artifact.folder / CARD, subject.manifest.task
    try:
        card = read_object(path)
    except StageError as error:
        yield error.message
        return
    # As JSON has it: lists for tuples.
    wanted = json.loads(json.dumps({"name": subject.manifest.name, "task": task.kind, "options": asdict(task.options)}))
    for key in sorted({*wanted, *card}):
        if card.get(key) != wanted.get(key):
            yield f"{CARD} says another {key} than the manifest"


def _sums(folder: Path) -> Iterator[str]:
    if not (folder / SUMS).is_file():
        yield f"there is no {SUMS}"
        return
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    told = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = {path.name: digest_file(path).sha256 for path in folder.iterdir() if path.is_file() and path.name != SUMS}
    for name in sorted({*told, *there}):
        if told.get(name) != there.get(name):
            yield f"{SUMS} has another sum of {name}"
