"""Writing ONNX graphs: files, names, the blocks of a transformer, integer arithmetic per token."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from modelkit.vocabulary import WHOLE

MODEL, DATA = "model.onnx", "model.onnx.data"
"""A model's files. They stand here because a run in which nothing is built needs the names, but not onnx."""


def checkpoint(folder: Path, part: str) -> Path:
    """Where a checkpoint keeps the files of `part`: in itself, or one level down (`text_model/model.onnx`)."""
    return folder if part == WHOLE else folder / part


def parts(folder: Path) -> dict[str, Path]:
    """Part -> ONNX file, sorted, of a checkpoint or of a finished folder (`text_model.onnx`)."""
    here = {path.stem: path for path in folder.glob("*.onnx")}
    return dict(sorted((here or {path.parent.name: path for path in folder.glob(f"*/{MODEL}")}).items()))


def model_files(names: Iterable[str]) -> list[str]:
    """Of the file names of a finished folder, those of the model: every part and its data file."""
    return sorted(name for name in names if name.endswith((".onnx", ".onnx.data")))
