"""A model that its source already offers as ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.errors import MissingFileError, StageError
from modelkit.vocabulary import Manifest

if TYPE_CHECKING:
    import onnx

VERSION = 1
TOOLS = ("onnx", "onnx-ir", "protobuf")


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
        raise MissingFileError(options.file, hint="name it in `source.files` and in `export`")
    _refuse_missing_data(path)
    files.save(ir.load(path), files.TensorFile(into))


def _read(path: Path) -> onnx.ModelProto:
    from modelkit.graphs import files  # noqa: PLC0415

    try:
        return files.read_graph(path)
    except StageError as error:
        # Where the store keeps its copy says nothing to whoever looks for the file.
        hint = "the source offers it so: take another file or another revision"
        raise StageError(error.message, where=path.name, hint=hint) from error


def _refuse_missing_data(path: Path) -> None:
    """Every tensor stored beside the file has to be there in full, and inside the source."""
    from modelkit.graphs import files  # noqa: PLC0415

    base = path.parent.resolve()
    for tensor in files.all_initializers(_read(path).graph):
        if not (stored := files.external_location(tensor)):
            continue
        data = (base / stored["location"]).resolve()
        if not data.is_relative_to(base):
            raise StageError(
                f"{path.name} reads {stored['location']}, which is outside the source", hint="do not use it"
            )
        if not data.is_file():
            raise StageError(
                f"no {stored['location']} in the source", hint=f"{path.name} needs it: add it to `source.files`"
            )
        if data.stat().st_size < int(stored.get("offset", 0)) + int(stored.get("length", 0)):
            raise StageError(f"{stored['location']} ends before tensor '{tensor.name}'", hint="fetch the source again")
