"""A model that its source already offers as ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelkit.errors import StageError
from modelkit.vocabulary import Manifest

VERSION = 1
TOOLS = ("onnx", "onnx-ir")


@dataclass(frozen=True)
class Options:
    """`file` is the ONNX file's name in the source; name it in `source.files` too."""

    file: str = "model.onnx"


def export(manifest: Manifest, source: Path, into: Path, options: Options) -> None:  # noqa: ARG001
    """Take over the file and its external data. Raises `StageError` when it is missing or no ONNX file."""
    import onnx_ir as ir  # noqa: PLC0415

    from modelkit.graphs import files  # noqa: PLC0415

    path = source / options.file
    if not path.is_file():
        raise StageError(f"no {options.file} in the source", hint="name it in `source.files` and in `export`")
    files.read_graph(path)
    files.save(ir.load(path), files.TensorFile(into))
