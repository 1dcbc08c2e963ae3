"""Nothing in the finished folder but what belongs there, and nothing that could run or reach out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.digests import digest_folder
from modelkit.errors import ArtifactError
from modelkit.vocabulary import Subject, Verdict

VERSION = 1
PROMISE = (
    "the files are those that were built; no pickle, no escaping path, no unknown operator domain, no machine path"
)
DOMAINS = {"", "ai.onnx", "com.microsoft"}
"""ONNX's own operators and onnxruntime's contributed ones."""
PICKLES = {".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib"}
PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
MACHINE_PATH = re.compile(r"(?:^|[\s'\"=:])(?:/(?:home|root|Users|tmp|work|opt)/|[A-Za-z]:\\)")


@dataclass(frozen=True)
class Options:
    """No limits."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Look at every file of the artifact and at the graph's own claims."""
    from modelkit.graphs import MODEL  # noqa: PLC0415
    from modelkit.graphs.files import read_graph  # noqa: PLC0415

    folder = subject.artifact.folder
    model = read_graph(folder / MODEL)
    operators = Counter(node.domain or "ai.onnx" for node in _nodes(model))
    problems = [
        *_changed(subject), *_pickles(folder), *_escapes(model, folder), *_foreign(operators), *_paths(model),
        *_refused_by_checker(folder / MODEL),
    ]  # fmt: skip
    measured = {"files": len(subject.artifact.files), "operators": dict(operators)}
    if problems:
        return Verdict("hygiene", "failed", "; ".join(problems), measured)
    return Verdict("hygiene", "passed", f"{len(subject.artifact.files)} files, as built", measured)


def _nodes(model: Any) -> Iterator[Any]:
    from modelkit.graphs.files import all_graphs  # noqa: PLC0415

    for graph in all_graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _changed(subject: Subject) -> Iterator[str]:
    try:
        found = digest_folder(subject.artifact.folder)
    except ArtifactError as error:
        yield error.message
        return
    for name in sorted({*found, *subject.artifact.files}):
        if found.get(name) != subject.artifact.files.get(name):
            yield f"{name} is not the file that was built"


def _pickles(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            start = file.read(2)
        if path.suffix.lower() in PICKLES or PICKLE_START.match(start):
            yield f"{path.name} may be a pickle, which runs code when it is read"


def _escapes(model: Any, folder: Path) -> Iterator[str]:
    from modelkit.graphs.files import all_initializers, external_location  # noqa: PLC0415

    for tensor in all_initializers(model.graph):
        place = external_location(tensor)
        if not place:
            continue
        path = folder / place["location"]
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            yield f"tensor {tensor.name} is stored at {place['location']}, which is not a file of this folder"
        elif int(place.get("offset", 0)) + int(place.get("length", 0)) > path.stat().st_size:
            yield f"tensor {tensor.name} reaches beyond the end of {place['location']}"


def _foreign(operators: Counter[str]) -> Iterator[str]:
    for domain in sorted(set(operators) - DOMAINS):
        yield f"operators of the domain {domain} need code that no runtime ships"


def _paths(model: Any) -> Iterator[str]:
    texts = [model.producer_name, model.doc_string, model.graph.doc_string, model.graph.name]
    texts += [entry.value for entry in model.metadata_props]
    texts += [node.doc_string for node in _nodes(model)]
    for text in texts:
        if MACHINE_PATH.search(text):
            yield f"the model carries a path of the machine it was made on: {text[:80]!r}"


def _refused_by_checker(path: Path) -> Iterator[str]:
    import onnx  # noqa: PLC0415

    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        yield f"onnx.checker: {str(error).strip().splitlines()[0]}"
