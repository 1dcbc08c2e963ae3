"""The model reads its weights from outside its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Let one tensor stand in a file one folder up."""
    import onnx  # noqa: PLC0415

    path = sorted(folder.glob("*.onnx"))[0]
    model = onnx.load(path, load_external_data=False)
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data), default=None)
    if tensor is None or not (length := len(tensor.raw_data)):
        return None
    (folder.parent / "elsewhere.data").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "../elsewhere.data", "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return f"{tensor.name} stands in ../elsewhere.data"
