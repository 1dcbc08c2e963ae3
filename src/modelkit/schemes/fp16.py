"""Half the bytes: float32 tensors stored as float16 and cast back when the model is loaded; computed in float32.

onnxruntime's CPU kernels compute float16 by casting around every node, which is slower than float32; casting the stored
tensors once (they fold when the model is loaded) keeps float32's speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelkit.errors import StageError

VERSION = 1
TOOLS = ("onnx", "onnx-ir", "numpy", "protobuf")


@dataclass(frozen=True)
class Options:
    """No choices."""


def quantize(source: Path, into: Path, options: Options) -> None:  # noqa: ARG001
    """Write the model of `source` to `into`. Raises `StageError` for a weight that float16 cannot hold."""
    import numpy as np  # noqa: PLC0415
    import onnx_ir as ir  # noqa: PLC0415

    from modelkit.graphs import files  # noqa: PLC0415
    from modelkit.graphs.tape import Tape  # noqa: PLC0415

    model, tensors = files.load(source), files.TensorFile(into)
    tape = Tape(tensors)
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or value.dtype != ir.DataType.FLOAT or tensor.nbytes < files.INLINE_BELOW:
            continue
        array = tensor.numpy()
        if not np.abs(array).max() <= np.finfo(np.float16).max:
            raise StageError(f"tensor '{name}' holds NaN or values beyond float16's 65504", hint="use the scheme fp32")
        half = tape.weight(f"{name}/float16", array.astype(np.float16))
        whole = tape.node(f"{name}/float32", "Cast", half, to=ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(value, whole)
        del model.graph.initializers[name]
        model.graph.register_initializer(half)
    first = next(iter(model.graph))
    model.graph.insert_before(first, tape.nodes)
    files.save(model, tensors)
