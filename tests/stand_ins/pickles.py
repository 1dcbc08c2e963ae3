"""pytorch_model.bin as torch.save writes it, made without torch: opcode by opcode, so that tests can write any."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
LEGACY_HEAD = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def numbers(*values: int) -> bytes:
    """A tuple of whole numbers."""
    return b"(" + b"".join(number(value) for value in values) + b"t"


def number(value: int) -> bytes:
    return b"\x8a" + bytes([9]) + value.to_bytes(9, "little", signed=True)


def tensor(
    key: str, count: int, shape: Sequence[int], strides: Sequence[int], offset: int = 0, kind: str = "FloatStorage"
) -> bytes:
    """A view of the storage `key`, which has `count` elements."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count)
    view = number(offset) + numbers(*shape) + numbers(*strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + view + b"\x89" + ORDERED_DICT + b"tR"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    """A whole pickle of protocol 2; the values are opcodes."""
    return b"\x80\x02" + ORDERED_DICT + b"(" + b"".join(text(name) + value for name, value in items.items()) + b"u."


def zipped(path: Path, data: bytes, storages: Mapping[str, bytes], folder: str = "archive") -> Path:
    """The form since torch 1.6."""
    members = {"data.pkl": data, "byteorder": b"little", **{f"data/{key}": held for key, held in storages.items()}}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "version": b"3\n"}.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}"), content)
    return path


def legacy(path: Path, data: bytes, storages: Mapping[str, tuple[int, bytes]]) -> Path:
    """The form before torch 1.6; a storage comes with its length."""
    head = [pickle.dumps(value, protocol=2) for value in LEGACY_HEAD]
    keys = pickle.dumps(list(storages), protocol=2)
    body = [struct.pack("<q", count) + held for count, held in storages.values()]
    path.write_bytes(b"".join([*head, data, keys, *body]))
    return path


def save(tensors: Mapping[str, np.ndarray], path: Path, tied: Mapping[str, str] | None = None) -> Path:
    """`tensors` in the zip form; `tied` names more of them: other name -> the one whose storage it shares."""
    storages = {str(key): np.ascontiguousarray(array) for key, array in enumerate(tensors.values())}
    items = dict(zip(tensors, (_whole(key, array) for key, array in storages.items()), strict=True))
    items |= {name: items[other] for name, other in (tied or {}).items()}
    return zipped(path, dictionary(items), {key: array.tobytes() for key, array in storages.items()})


def _whole(key: str, array: np.ndarray) -> bytes:
    strides = [stride // array.itemsize for stride in array.strides]
    return tensor(key, array.size, array.shape, strides, kind=STORAGES[array.dtype.name])
