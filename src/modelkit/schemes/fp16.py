"""Half the bytes: float32 tensors stored as float16 and cast back when the model is loaded; computed in float32.

onnxruntime's CPU kernels compute float16 by casting around every node, which is slower than float32; casting the stored
tensors once (they fold when the model is loaded) keeps float32's speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.errors import StageError

if TYPE_CHECKING:
    from modelkit.graphs.stored import Matrix

VERSION = 1
BITS = 16
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
    names = {name for graph in model.graphs() for name in graph.initializers}
    for graph in list(model.graphs()):
        for name, value in list(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or value.dtype != ir.DataType.FLOAT or tensor.nbytes < files.INLINE_BELOW:
                continue
            array = tensor.numpy()
            if not np.abs(array).max() <= np.finfo(np.float16).max:
                raise StageError(
                    f"tensor '{name}' holds NaN or values beyond float16's 65504",
                    hint="the scheme fp32 takes large values as they are",
                )
            # What bodies store goes to the outer graph, where another body's tensor may have the name already.
            free = next(n for n in _numbered(name) if f"{n}/float16" not in names)
            names.add(f"{free}/float16")
            half = tape.weight(f"{free}/float16", array.astype(np.float16))
            whole = tape.node(f"{free}/float32", "Cast", half, to=ir.DataType.FLOAT)
            ir.convenience.replace_all_uses_with(value, whole)
            del graph.initializers[name]
            model.graph.register_initializer(half)
    first = next(iter(model.graph))
    model.graph.insert_before(first, tape.nodes)
    files.save(model, tensors)


def promised(options: Options, matrix: Matrix) -> int:  # noqa: ARG001
    """Bits per value: 16, or 32 of a tensor too small to be halved."""
    from modelkit.graphs.files import INLINE_BELOW  # noqa: PLC0415

    return 32 if matrix.values * 4 < INLINE_BELOW else BITS


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name}/{number}"
