"""int8 weights, one scale per column; uint8 activations, one scale per token; int8 embedding tables, one per row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.calibration import Calibrated

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs.calibrated import Calibration
    from modelkit.graphs.files import TensorFile
    from modelkit.graphs.float64 import Activations
    from modelkit.graphs.stored import Matrix

VERSION = 4
BITS = 8
TOOLS = ("onnx", "onnx-ir", "numpy", "protobuf")


@dataclass(frozen=True)
class Options(Calibrated):
    """`activations_16bit`: patterns of weights (`*.value.weight`) whose input keeps about 16 bits.

    It costs one more integer product for each, and lifts MiniLM's mean cosine from .9967 to .9984 (docs/decisions/002).
    `smoothing` (alpha of SmoothQuant, 0 to 1) and `rounding` learn from the task's calibration texts.
    """

    activations_16bit: tuple[str, ...] = ()


def quantize(source: Path, into: Path, options: Options, activations: Activations | None = None) -> None:
    """Write the model of `source` to `into` in integer arithmetic (see `graphs/per_token.py`)."""
    from modelkit.graphs import files  # noqa: PLC0415
    from modelkit.graphs.calibrated import Calibration  # noqa: PLC0415

    model, tensors = files.load(source), files.TensorFile(into)
    _rewrite(model, tensors, options, Calibration(options.smoothing, options.rounding, activations))
    files.save(model, tensors)


def forecast(source: Path, options: Options) -> int:
    """Bytes of what `quantize` will make of the model of `source`, as one file. Raises `StageError` as that does."""
    from modelkit.graphs import files  # noqa: PLC0415
    from modelkit.graphs.blank import Blank  # noqa: PLC0415

    model, tensors = files.load(source), files.Counted()
    _rewrite(model, tensors, options, Blank(options.smoothing))
    return files.size(model, tensors)


def _rewrite(model: ir.Model, tensors: TensorFile, options: Options, calibration: Calibration) -> None:
    from modelkit.graphs import per_token, quantized  # noqa: PLC0415

    precision = per_token.Precision(options.activations_16bit)
    per_token.quantize(model, tensors, precision, quantized.matrix_int8, quantized.table_int8, calibration)


def promised(options: Options, matrix: Matrix) -> int:
    """Bits per value; 32 of what the scheme leaves alone."""
    from modelkit.graphs import per_token  # noqa: PLC0415

    return per_token.promised(matrix, per_token.Precision(options.activations_16bit), BITS)
