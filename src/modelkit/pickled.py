"""Reading pytorch_model.bin without torch and without running it: one tensor at a time, by its place in the file.

Two forms (`torch.save`): since torch 1.6 a zip archive that holds `NAME/data.pkl` and every storage uncompressed as
`NAME/data/KEY`; before, pickles one after the other (a magic number, a version, facts of the machine, the dictionary,
the keys of its storages), and behind them each storage after its length. What the pickles hold is read by `opcodes`.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from modelkit import opcodes
from modelkit.errors import StageError

WHOLE, SHARDS = "pytorch_model.bin", "pytorch_model-*-of-*.bin"
"""File names, as patterns."""
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
LEGACY = (0x1950A86A20F9469CFC6C, 1001)
"""Magic number and version of the form before torch 1.6."""
LARGEST_PICKLE = 64 << 20
"""A dictionary of a hundred thousand tensors has some 15 MB; more is no dictionary of tensors."""


@dataclass(frozen=True)
class _Place:
    """The bytes of one storage; the older form has no checksums."""

    start: int
    size: int
    crc: int | None = None


class Checkpoint:
    """The tensors of one file. Only names, shapes and places are kept in memory."""

    def __init__(self, path: Path) -> None:
        """Raises `StageError` for a file that is cut short or damaged, or asks for anything but tensors."""
        self.path = path
        try:
            with path.open("rb") as file:
                zipped = file.read(2) == b"PK"
            held, self._places = _zipped(path) if zipped else _legacy(path)
        except (zipfile.BadZipFile, struct.error, *_UNREADABLE) as error:
            raise StageError(
                f"{path.name} is no complete file of torch.save ({error})",
                hint="it was cut short or damaged; fetch the source again",
            ) from error
        self._tensors = _tensors(held, path.name)
        self._refuse_missing_bytes()

    def names(self) -> Iterable[str]:
        """The tensors by name, in the file's order."""
        return self._tensors

    def form(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Element type, by safetensors' names, and shape of a tensor."""
        tensor = self._tensors[name]
        return tensor.storage.dtype, tensor.shape

    def read(self, name: str) -> Any:
        """The floating-point tensor as float32 of its own, contiguous. Raises `StageError` for damaged bytes."""
        import ml_dtypes  # noqa: F401, PLC0415  numpy knows bfloat16 by name once this is imported
        import numpy as np  # noqa: PLC0415

        tensor = self._tensors[name]
        dtype = np.dtype(FLOATS[tensor.storage.dtype])
        flat = self._bytes(tensor).view(dtype)
        # An axis of one element is never stepped along, and its stride may be any number.
        strides = [
            stride * dtype.itemsize * (size > 1) for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        ]
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
        # A tensor that is all of its bytes in order is not copied again.
        whole = view.flags.c_contiguous and flat.size == view.size
        if whole and dtype == np.float32:
            return flat.reshape(tensor.shape)
        # A number too large for float32 becomes infinite, which the checks tell of.
        with np.errstate(over="ignore"):
            return np.array(view, np.float32, order="C")

    def _bytes(self, tensor: opcodes.Tensor) -> Any:
        """uint8 of the file from the tensor's first element to its last."""
        import numpy as np  # noqa: PLC0415

        place, width = self._places[tensor.storage.key], BYTES[tensor.storage.dtype]
        size = opcodes.extent(tensor) * width
        with self.path.open("rb") as file:
            found = np.fromfile(file, np.uint8, size, offset=place.start + tensor.offset * width)
        # The checksum is the whole storage's, so the part of one has none.
        whole = size == place.size
        if found.size != size or (whole and place.crc is not None and zlib.crc32(found.data) != place.crc):
            raise StageError(
                f"{self.path.name}: the bytes of a tensor are missing or damaged", hint="fetch the source again"
            )
        return found

    def _refuse_missing_bytes(self) -> None:
        end = self.path.stat().st_size
        for name, tensor in self._tensors.items():
            place = self._places.get(tensor.storage.key)
            size = tensor.storage.count * BYTES[tensor.storage.dtype]
            if place is None or place.size < size or place.start + size > end:
                raise StageError(
                    f"{self.path.name} ends before tensor '{_printable(name)}'",
                    hint="it was cut short or damaged; fetch the source again",
                )


def _tensors(held: Any, source: str) -> dict[str, opcodes.Tensor]:
    """The dictionary that was saved. Raises `StageError` when it is none, or holds anything but tensors."""
    if type(held) is not dict or not held:
        raise StageError(f"{source} holds no dictionary of tensors", hint="save the model's state_dict()")
    for name, value in held.items():
        if type(name) is not str or not isinstance(value, opcodes.Tensor):
            what = f"'{_printable(name)}'" if type(name) is str else "something under a number"
            raise StageError(
                f"{source} holds {what}, which is no tensor",
                hint="save the model's state_dict() alone, without the rest of a training run",
            )
    return held


def _zipped(path: Path) -> tuple[Any, dict[str, _Place]]:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {entry.filename: entry for entry in archive.infolist()}
        folders = [name.removesuffix("data.pkl") for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(folders) != 1:
            raise ValueError("it does not have one data.pkl")
        (folder,) = folders
        if order := members.get(f"{folder}byteorder"):
            _refuse_big_endian(_content(file, order) == b"big", path.name)
        held = opcodes.load(io.BytesIO(_content(file, members[f"{folder}data.pkl"])), path.name)
        data = {name: entry for name, entry in members.items() if name.startswith(f"{folder}data/")}
        return held, {name.removeprefix(f"{folder}data/"): _place(file, entry) for name, entry in data.items()}


def _place(file: IO[bytes], entry: zipfile.ZipInfo) -> _Place:
    """Where the bytes of a member begin: behind its own header, whose length the archive's directory does not tell."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError("it is compressed")
    signature, name, extra = struct.unpack("<4s22xHH", _bytes_at(file, entry.header_offset, 30))
    if signature != b"PK\3\4":
        raise ValueError("a member is not where the archive says")
    return _Place(entry.header_offset + 30 + name + extra, entry.file_size, entry.CRC)


def _content(file: IO[bytes], entry: zipfile.ZipInfo) -> bytes:
    place = _place(file, entry)
    if place.size > LARGEST_PICKLE:
        raise ValueError(f"{entry.filename} is too large")
    content = _bytes_at(file, place.start, place.size)
    if zlib.crc32(content) != place.crc:
        raise ValueError(f"{entry.filename} is damaged")
    return content


def _bytes_at(file: IO[bytes], at: int, size: int) -> bytes:
    # Asked first, because a place that no file has makes `seek` fail as a broken disk would.
    if not 0 <= at <= os.fstat(file.fileno()).st_size - size:
        raise ValueError("it ends too early")
    file.seek(at)
    return file.read(size)


def _legacy(path: Path) -> tuple[Any, dict[str, _Place]]:
    with path.open("rb") as file:
        # The pickles stand in front; the rest is tensors, which must not come to memory.
        head = io.BytesIO(file.read(LARGEST_PICKLE))
        magic, version = (opcodes.load(head, path.name) for _ in LEGACY)
        if (magic, version) != LEGACY:
            raise ValueError("it is neither a zip archive nor what torch wrote before 1.6")
        machine, held, keys = (opcodes.load(head, path.name) for _ in range(3))
        _refuse_big_endian(type(machine) is dict and machine.get("little_endian") is False, path.name)
        if type(held) is not dict or type(keys) is not list:
            raise ValueError("it has no dictionary, or no storages")
        widths = {v.storage.key: BYTES[v.storage.dtype] for v in held.values() if isinstance(v, opcodes.Tensor)}
        places, at = {}, head.tell()
        for key in keys:
            (count,) = struct.unpack("<q", _bytes_at(file, at, 8))
            if type(key) is not str or count < 0:
                raise ValueError("a storage has no key or no length")
            # A storage that no tensor names has an unknown width, so that nothing behind it could be found.
            places[key] = _Place(at + 8, count * widths[key])
            at += 8 + places[key].size
        return held, places


_UNREADABLE = (
    opcodes.Damaged,
    *(ValueError, KeyError, IndexError, OverflowError, EOFError, MemoryError, NotImplementedError, RuntimeError),
)
"""What zipfile and the rest raise for files that are not what they seem."""


def _refuse_big_endian(big: bool, source: str) -> None:
    if big:
        raise StageError(f"{source} has its bytes in big-endian order", hint="save it again on a common machine")


def _printable(name: str) -> str:
    return re.sub(r"[^ -~]", "?", name)[:100]
