"""Nothing in the finished folder but what belongs there, and nothing that could run or reach out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.digests import digest_folder
from modelkit.errors import ArtifactError, StageError
from modelkit.vocabulary import Subject, Verdict

VERSION = 4
PROMISE = (
    "the files are those that were built; no pickle, no escaping path, no unknown operator domain, no machine path, "
    "no NaN, no infinity among weights"
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
    from modelkit.graphs import contents, parts  # noqa: PLC0415
    from modelkit.graphs.files import read_graph  # noqa: PLC0415

    folder = subject.artifact.folder
    problems = [*_changed(subject), *_pickles(folder)]
    operators: Counter[str] = Counter()
    for path in parts(folder).values():
        try:
            model = read_graph(path)
        except (StageError, OSError) as error:
            # Whoever damaged the file, that is what was found, and no reason to be silent about the rest.
            problems.append(f"{path.name} {error.message if isinstance(error, StageError) else 'cannot be read'}")
            continue
        operators.update(node.domain or "ai.onnx" for node in contents.nodes(model))
        problems += [*_escapes(model, folder), *_foreign(model), *_paths(model), *_refused_by_checker(path)]
        problems += contents.no_numbers(model, folder)
    measured = {"files": len(subject.artifact.files), "operators": dict(operators)}
    if problems:
        return Verdict("hygiene", "failed", "; ".join(problems), measured)
    return Verdict("hygiene", "passed", f"{len(subject.artifact.files)} files, as built", measured)


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
        # Raw tensor bytes may begin with any two; nothing unpickles them.
        if path.suffix.lower() in PICKLES or (not path.name.endswith(".onnx.data") and PICKLE_START.match(start)):
            yield f"{path.name} may be a pickle, which runs code when it is read"


def _escapes(model: Any, folder: Path) -> Iterator[str]:
    from modelkit.graphs import contents  # noqa: PLC0415
    from modelkit.graphs.files import external_location  # noqa: PLC0415

    for tensor in contents.tensors(model):
        place = external_location(tensor)
        if not place:
            continue
        location = place.get("location", "")
        path = folder / location
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            yield f"tensor {tensor.name} is stored at {location}, which is not a file of this folder"
        elif not _fits(place, path.stat().st_size):
            yield f"tensor {tensor.name} reaches beyond the end of {location}"


def _fits(place: Mapping[str, str], size: int) -> bool:
    try:
        offset, length = int(place.get("offset", 0)), int(place.get("length", 0))
    except ValueError:
        return False
    return min(offset, length) >= 0 and offset + length <= size


def _foreign(model: Any) -> Iterator[str]:
    from modelkit.graphs import contents  # noqa: PLC0415

    # A function that the file itself defines needs nobody's code.
    own = {(function.domain, function.name) for function in model.functions}
    used = {node.domain for node in contents.nodes(model) if (node.domain, node.op_type) not in own}
    for domain in sorted(used - DOMAINS):
        yield f"operators of the domain {domain} need code that no runtime ships"


def _paths(model: Any) -> Iterator[str]:
    from modelkit.graphs import contents  # noqa: PLC0415

    described = [model, *contents.bodies(model), *contents.nodes(model)]
    texts = [model.producer_name, model.graph.name, *(part.doc_string for part in described)]
    # Exporters keep a node's stack trace in its metadata, file names and all.
    texts += [entry.value for part in described for entry in part.metadata_props]
    for text in dict.fromkeys(texts):
        if MACHINE_PATH.search(text):
            yield f"the model carries a path of the machine it was made on: {text[:80]!r}"


def _refused_by_checker(path: Path) -> Iterator[str]:
    import onnx  # noqa: PLC0415

    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        yield f"onnx.checker: {str(error).strip().splitlines()[0]}"
