"""ONNX files on disk. Between stages a model is `model.onnx` with all large tensors beside it in `model.onnx.data`,
so that a stage reads and writes one tensor at a time; the finished model is one file wherever the format allows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import onnx
import onnx_ir as ir

from modelkit.errors import StageError
from modelkit.graphs import DATA, MODEL
from modelkit.vocabulary import WHOLE

INLINE_BELOW = 1024
"""Tensors smaller than this stay in `model.onnx`: shapes must be readable there without the data file."""
LARGEST_FILE = 2**31 - 1
"""Protobuf refuses larger messages, https://protobuf.dev/programming-guides/proto-limits/."""


class TensorFile:
    """The growing data file of a model being written; every tensor goes to disk as soon as it is known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._end = 0

    def add(self, name: str, array: Any) -> ir.TensorProtocol:
        """Store `array` and return the tensor that stands for it in the graph."""
        tensor = ir.tensor(array, name=name)
        return tensor if tensor.nbytes < INLINE_BELOW else self._append(tensor, name)

    def adopt(self, tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
        """Copy a tensor that lives in another model's data file; one that is here already is left alone."""
        if not isinstance(tensor, ir.ExternalTensor) or Path(tensor.path) == self.folder / DATA:
            return tensor
        return self._append(tensor, name)

    def _append(self, tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
        self._write(tensor)
        start, self._end = self._end, self._end + tensor.nbytes
        return ir.ExternalTensor(
            DATA,
            start,
            tensor.nbytes,
            tensor.dtype,
            shape=tensor.shape,  # type: ignore[arg-type]
            name=name,
            base_dir=self.folder,
        )

    def _write(self, tensor: ir.TensorProtocol) -> None:
        # Not in append mode: the kernel's copy between files, which `tofile` uses, refuses it.
        with (self.folder / DATA).open("r+b" if self._end else "wb") as file:
            file.seek(self._end)
            tensor.tofile(file)  # type: ignore[attr-defined]


class Counted(TensorFile):
    """A data file that is not written, for the size it would have."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._end

    def _write(self, tensor: ir.TensorProtocol) -> None:
        pass


def load(folder: Path) -> ir.Model:
    """The model in `folder`; its large tensors stay on disk until they are asked for."""
    return ir.load(folder / MODEL)


def save(model: ir.Model, tensors: TensorFile) -> None:
    """Write `model` into the folder of `tensors`, bringing over what still lives elsewhere."""
    _adopt_all(model, tensors)
    _inline_nested(model)
    (tensors.folder / MODEL).write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def size(model: ir.Model, tensors: Counted) -> int:
    """Bytes of `model` as `save` and `finish` would write it in one file, give or take some for each tensor."""
    _adopt_all(model, tensors)
    return tensors.size + int(ir.to_proto(model).ByteSize())


def _adopt_all(model: ir.Model, tensors: TensorFile) -> None:
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.name is not None:
            value.const_value = tensors.adopt(value.const_value, value.name)


def _inline_nested(model: ir.Model) -> None:
    """Graphs inside nodes keep their few tensors in the file: `finish` inlines those of the outer graph alone."""
    for graph in model.graphs():
        for value in graph.initializers.values() if graph is not model.graph else ():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)


def finish(folder: Path, into: Path, part: str = WHOLE) -> None:
    """Write the model of `folder` to `into/<part>.onnx`: one file, or two when it is larger than one file may be."""
    target = into / f"{part}.onnx"
    proto = read_graph(folder / MODEL)
    if not (folder / DATA).exists():
        shutil.copyfile(folder / MODEL, target)
        return
    if (folder / DATA).stat().st_size + proto.ByteSize() > LARGEST_FILE:
        _relocate(proto, f"{target.name}.data")
        target.write_bytes(proto.SerializeToString(deterministic=True))
        shutil.copyfile(folder / DATA, into / f"{target.name}.data")
        return
    initializers = list(proto.graph.initializer)
    del proto.graph.initializer[:]
    with target.open("wb") as out, (folder / DATA).open("rb") as data:
        _write_inlined(proto, initializers, data, out)


def _relocate(proto: onnx.ModelProto, location: str) -> None:
    """The data file is called after its part, so that two parts can lie in one folder."""
    for tensor in all_initializers(proto.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location


def read_graph(path: Path) -> onnx.ModelProto:
    """The model's protobuf without its external data. Raises `StageError` when `path` is no ONNX file."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        proto = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise StageError("is no readable ONNX file", where=path, hint="build it again") from error
    if not proto.graph.node:
        raise StageError("is an ONNX file without a graph", where=path, hint="build it again")
    return proto


def account(path: Path) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name, ONNX element type, shape and bytes of every stored tensor, largest first."""
    rows = [
        (tensor.name, onnx.TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims), _nbytes(tensor))
        for tensor in all_initializers(read_graph(path).graph)
    ]
    return sorted(rows, key=lambda row: (-row[3], row[0]))


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and every graph inside its nodes' attributes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from all_graphs(inner)


def all_initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor of `graph` and of the graphs inside it."""
    for inner in all_graphs(graph):
        yield from inner.initializer


def array_of(tensor: onnx.TensorProto, folder: Path) -> Any:
    """What `tensor` stores, also where it stands in a data file of `folder`; 4-bit types come one value per byte.

    Raises `StageError` when the data is not there, or is of another size than type and shape say.
    """
    if external_location(tensor):
        # onnx 1.18 leaves in the tensor what it read, and a graph saved after that holds it twice.
        kept, tensor = tensor, onnx.TensorProto()
        tensor.CopyFrom(kept)
    try:
        return onnx.numpy_helper.to_array(tensor, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise StageError(f"stores nothing that can be read as {tensor.name}", hint="build it again") from error


def external_location(tensor: onnx.TensorProto) -> dict[str, str]:
    """The `location`, `offset` and `length` of a tensor stored outside the file; empty for one stored inside."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _nbytes(tensor: onnx.TensorProto) -> int:
    return int(external_location(tensor).get("length", 0)) or tensor.ByteSize()


# Protobuf wire format, https://protobuf.dev/programming-guides/encoding/. Written by hand because the library builds
# the whole message in memory twice (object and bytes) before the first byte reaches the disk.
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


def _write_inlined(
    model: onnx.ModelProto, initializers: list[onnx.TensorProto], data: IO[bytes], out: IO[bytes]
) -> None:
    heads = [_head(tensor) for tensor in initializers]
    graph = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    size = len(graph) + sum(len(_length_prefix(_INITIALIZER, len(head) + length)) + len(head) + length
                            for head, _, length in heads)  # fmt: skip
    out.write(model.SerializeToString(deterministic=True) + _length_prefix(_GRAPH, size) + graph)
    for head, offset, length in heads:
        out.write(_length_prefix(_INITIALIZER, len(head) + length) + head)
        data.seek(offset)
        _copy(data, out, length)


def _head(tensor: onnx.TensorProto) -> tuple[bytes, int, int]:
    """A tensor's bytes up to its data, and where in the data file these are: (head, offset, length)."""
    place = external_location(tensor)
    if not place:
        return tensor.SerializeToString(deterministic=True), 0, 0
    length = int(place["length"])
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    return (
        tensor.SerializeToString(deterministic=True) + _length_prefix(_RAW_DATA, length),
        int(place["offset"]),
        length,
    )


def _length_prefix(field: int, length: int) -> bytes:
    return _varint(field << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _copy(source: IO[bytes], target: IO[bytes], length: int) -> None:
    while length:
        piece = source.read(min(length, 1 << 20))
        if not piece:
            raise StageError(f"{DATA} ends {length} bytes early", hint="build it again with --force")
        target.write(piece)
        length -= len(piece)
