"""onnxruntime's own dynamic int8 quantization, per channel: the reference that others ship.

Activation scales are per tensor, so a sentence's vector changes with its neighbours in the batch; `w8a8-per-token` does
not do that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.errors import StageError

if TYPE_CHECKING:
    from modelkit.graphs.stored import Matrix

VERSION = 1
BITS = 8
TOOLS = ("onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Options:
    """`reduce_range` keeps weights to 7 bits, for processors without VNNI."""

    per_channel: bool = True
    reduce_range: bool = False


def quantize(source: Path, into: Path, options: Options) -> None:
    """Write the model of `source` to `into` with `onnxruntime.quantization.quantize_dynamic`.

    Raises `StageError` when that fails, or makes nothing smaller.
    """
    from modelkit import runtime  # noqa: PLC0415
    from modelkit.graphs import MODEL, files  # noqa: PLC0415

    runtime.quantize_dynamic(
        source / MODEL, into / MODEL, per_channel=options.per_channel, reduce_range=options.reduce_range
    )
    before, after = (sum(row[3] for row in files.account(folder / MODEL)) for folder in (source, into))
    if after >= before:
        raise StageError(
            f"onnxruntime's quantizer made nothing smaller: {before:,} bytes of tensors became {after:,}",
            hint="use the scheme w8a8-per-token",
        )


def promised(options: Options, matrix: Matrix) -> int:  # noqa: ARG001
    """Bits per value: 8, or 32 of a table whose rows are sliced, which the quantizer does not know."""
    return 32 if matrix.read_by("Slice") else BITS
