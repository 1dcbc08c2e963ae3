"""onnxruntime's own weight-only kernels: `MatMulNBits` for products, `GatherBlockQuantized` for tables, in blocks.

Weights are unpacked inside the product, so that decoding one token at a time is fast and a long prompt is not. Both
operators are onnxruntime's own (domain com.microsoft).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from modelkit.graphs.stored import Matrix

VERSION = 1
BITS = 4
TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy", "protobuf")


@dataclass(frozen=True)
class Options:
    """`bits` of a weight in products; tables get 4, for the quantizer knows no others. `block` weights share a scale.

    `accuracy_level` is what the kernel may compute in: 1 float32, 2 float16, 3 bfloat16, 4 int8, which is faster and
    rounds activations; 0 leaves it to onnxruntime.
    """

    bits: Literal[4, 8] = 4
    block: Literal[16, 32, 64, 128, 256] = 32
    symmetric: bool = False
    accuracy_level: Literal[0, 1, 2, 3, 4] = 0


def quantize(source: Path, into: Path, options: Options) -> None:
    """Write the model of `source` to `into`. Raises `StageError` when onnxruntime's quantizer cannot do it."""
    from modelkit import runtime  # noqa: PLC0415
    from modelkit.graphs import MODEL  # noqa: PLC0415

    runtime.quantize_matmul_nbits(
        source / MODEL, into / MODEL, options.bits, options.block, options.accuracy_level, symmetric=options.symmetric
    )


def forecast(source: Path, options: Options) -> int:
    """Bytes of what `quantize` will make of the model of `source`, as one file."""
    from modelkit.graphs import DATA, MODEL  # noqa: PLC0415
    from modelkit.graphs.stored import matrices, opened  # noqa: PLC0415

    total = sum(path.stat().st_size for path in (source / MODEL, source / DATA) if path.exists())
    for one in matrices(opened(source / MODEL)):
        if (bits := promised(options, one)) < one.bits:
            # Each block has a float32 scale and, unless it is symmetric, a zero point of as many bits as a code.
            blocks = one.values // options.block
            total -= one.values * (one.bits - bits) // 8
            total += blocks * 4 + (0 if options.symmetric else blocks * bits // 8)
    return total


def promised(options: Options, matrix: Matrix) -> int:
    """Bits per value; 32 of a table whose rows are sliced, which the quantizer does not know."""
    if matrix.read_by("Slice"):
        return 32
    return options.bits if matrix.multiplied else BITS
