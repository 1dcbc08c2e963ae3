"""Checkpoints, safetensors or pickled: one tensor at a time, so that memory holds a tensor and not the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from modelkit import pickled
from modelkit.errors import StageError

FLOATS = ("F32", "F16", "BF16", "F64")
"""What safetensors calls the types that become float32 here; integers would need scales that only their maker knows."""


class Weights:
    """The tensors of every `*.safetensors` file of one folder, by name; without one, those of pytorch_model.bin.

    `prefixes` are tried in front of every name, because a checkpoint of a task head carries its base model's tensors
    under a prefix (`bert.embeddings...`) and a bare one does not.
    """

    def __init__(self, folder: Path, prefixes: Sequence[str] = ("",)) -> None:
        self._prefixes = prefixes
        self._read: set[str] = set()
        self._files = {name: file for file in _checkpoints(folder) for name in file.names()}
        if not self._files:
            raise StageError(
                "no *.safetensors file in the source",
                hint="add one to `source.files`, or pytorch_model.bin where there is none",
            )

    def read(self, name: str, shape: tuple[int, ...]) -> Any:
        """The tensor as float32 of exactly `shape`. Raises `StageError` when it is missing, has another shape, or holds
        no floating-point numbers."""
        stored = self._find(name)
        self._read.add(stored)
        file = self._files[stored]
        dtype, found = file.form(stored)
        if found != shape:
            raise StageError(
                f"{file.path.name}: tensor '{stored}' has shape {list(found)}, config.json asks for {list(shape)}",
                hint="the weights and config.json do not belong together",
            )
        if dtype not in FLOATS:
            raise StageError(
                f"{file.path.name}: tensor '{stored}' is stored as {dtype}, expected {', '.join(FLOATS)}",
                hint="take the checkpoint before it was quantized",
            )
        return file.read(stored)

    def refuse_unread(self, idle: Sequence[str]) -> None:
        """Raise `StageError` when a tensor was never asked for and no pattern of `idle` says that this is right.

        A config.json with too few layers would otherwise build a smaller model, and compare it with itself.
        """
        unread = sorted(set(self._files) - self._read)
        left = [name for name in unread if not any(fnmatchcase(name, pattern) for pattern in idle)]
        if left:
            more = f" and {len(left) - 1} more" if left[1:] else ""
            raise StageError(
                f"the weights hold '{left[0]}'{more}, which the model of config.json does not use",
                hint="the weights and config.json do not belong together",
            )

    def _find(self, name: str) -> str:
        for prefix in self._prefixes:
            if prefix + name in self._files:
                return prefix + name
        files = sorted({file.path.name for file in self._files.values()})
        raise StageError(
            f"tensor '{name}' is missing from {', '.join(files)}{_near(name, self._files)}",
            hint="is `export` or the model_type of config.json the right one for these weights?",
        )


def _checkpoints(folder: Path) -> list[_Safe | pickled.Checkpoint]:
    """The files of one form: a source that has both says the same in both."""
    if safe := sorted(folder.glob("*.safetensors")):
        return [_Safe(path) for path in safe]
    pickles = [path] if (path := folder / pickled.WHOLE).exists() else sorted(folder.glob(pickled.SHARDS))
    return [pickled.Checkpoint(path) for path in pickles]


class _Safe:
    """One safetensors file. It is opened per tensor: closing it gives the mapped pages back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        with _open(self.path) as file:
            return list(file.keys())

    def form(self, name: str) -> tuple[str, tuple[int, ...]]:
        with _open(self.path) as file:
            header = file.get_slice(name)
            return header.get_dtype(), tuple(header.get_shape())

    def read(self, name: str) -> Any:
        import ml_dtypes  # noqa: F401, PLC0415  numpy knows bfloat16 once this is imported; it comes with onnx-ir
        import numpy as np  # noqa: PLC0415

        with _open(self.path) as file:
            return np.asarray(file.get_tensor(name), dtype=np.float32)


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise StageError(
            f"{path.name} is no complete safetensors file ({error})",
            hint="it was cut short or damaged; fetch the source again",
        ) from error


def _near(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415

    near = get_close_matches(name, list(known), n=1)
    return f" (the nearest is '{near[0]}')" if near else ""
