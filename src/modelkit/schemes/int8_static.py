"""onnxruntime's own static int8 (QDQ): every activation has one scale, fixed beforehand from calibration texts.

For runtimes and accelerators that take nothing else. Scales are those of float32 sums on the processor that
calibrates, so that another kind of processor may build other bytes. Of all schemes the furthest from float32
on a transformer, whose activations have outliers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelkit.graphs.float64 import Activations
    from modelkit.graphs.stored import Matrix

VERSION = 1
BITS = 8
TOOLS = ("onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Options:
    """`reduce_range` keeps weights to 7 bits, for processors without VNNI."""

    per_channel: bool = True
    reduce_range: bool = False

    @property
    def calibrates(self) -> bool:
        """It always does: from the least and the largest value of each activation."""
        return True


def quantize(source: Path, into: Path, options: Options, activations: Activations | None = None) -> None:
    """Write the model of `source` to `into` with `onnxruntime.quantization.quantize_static`.

    Raises `StageError` when that fails, or when no calibration text reaches the model.
    """
    from modelkit import runtime  # noqa: PLC0415
    from modelkit.errors import StageError  # noqa: PLC0415
    from modelkit.graphs import MODEL  # noqa: PLC0415

    fed = list(activations.feeds) if activations else []
    if not fed:
        raise StageError("no calibration text reaches it", hint="use a scheme that needs none, such as int8-dynamic")
    runtime.quantize_static(
        source / MODEL, into / MODEL, fed, per_channel=options.per_channel, reduce_range=options.reduce_range
    )


def promised(options: Options, matrix: Matrix) -> int:  # noqa: ARG001
    """Bits per value: 8, or 32 of a table whose rows are sliced, which the quantizer does not know."""
    return 32 if matrix.read_by("Slice") else BITS
