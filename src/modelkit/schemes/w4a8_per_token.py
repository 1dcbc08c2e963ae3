"""int4 on disk, int8 at run time: 4-bit weights and word embeddings, uint8 activations with one scale per token.

Each block of neighbours along the inner axis has a 4-bit zero point and a 4-bit step, packed in one byte; each column
one scale. `(code - zero) * step` fits int8, so unpacking is integer arithmetic on initializers, which onnxruntime folds
when it loads the model; from there on the run is that of `w8a8-per-token`. A runtime that does not fold it computes the
same values at every call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelkit.calibration import Calibrated
from modelkit.errors import StageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.graphs import stored
    from modelkit.graphs.calibrated import Calibration, Rounding
    from modelkit.graphs.files import TensorFile
    from modelkit.graphs.float64 import Activations
    from modelkit.graphs.quantized import Lookup, Matrix
    from modelkit.graphs.tape import Tape

VERSION = 5
BITS = 4
TOOLS = ("onnx", "onnx-ir", "numpy", "protobuf")


@dataclass(frozen=True)
class Options(Calibrated):
    """`block` and `table_block`: neighbours that share a zero point and a step; 16 costs 1/4 bit more than 32.

    `activations_16bit`, `weights_8bit`: patterns of weights (`*.value.weight`) that get more precision than the rest.
    `smoothing` (alpha of SmoothQuant, 0 to 1) and `rounding` learn from the task's calibration texts.
    """

    block: Literal[16, 32, 64, 128] = 16
    table_block: Literal[16, 32, 64, 128] = 64
    activations_16bit: tuple[str, ...] = ()
    weights_8bit: tuple[str, ...] = ()


def quantize(source: Path, into: Path, options: Options, activations: Activations | None = None) -> None:
    """Write the model of `source` to `into`. Raises `StageError` for a matrix that the blocks do not divide."""
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
    from modelkit.graphs import per_token  # noqa: PLC0415

    precision = per_token.Precision(options.activations_16bit, options.weights_8bit)
    write_matrix, write_table = partial(_matrix, block=options.block), partial(_table, block=options.table_block)
    per_token.quantize(model, tensors, precision, write_matrix, write_table, calibration)


def promised(options: Options, matrix: stored.Matrix) -> int:
    """Bits per value: 8 of what `weights_8bit` names and of sliced tables, 32 of what the scheme leaves alone."""
    from modelkit.graphs import per_token  # noqa: PLC0415

    return per_token.promised(matrix, per_token.Precision(options.activations_16bit, options.weights_8bit), BITS)


def _matrix(tape: Tape, name: str, array: Any, rounding: Rounding, *, block: int) -> Matrix:
    """float32[inner, outer] -> the unpacking chain. The two halves of each block share bytes.

    onnxruntime keeps what every node of the chain gives until all matrices of the model are folded, so that the chain's
    length decides the memory that loading takes: the codes are stored by block, and need no Reshape before the zeros.
    """
    import numpy as np  # noqa: PLC0415
    import onnx_ir as ir  # noqa: PLC0415

    from modelkit.graphs.quantized import Matrix  # noqa: PLC0415

    inner, outer = array.shape
    _divides(name, inner, block, "block")
    packed = rounding.to_int4(array.T, block, paired=True)
    by_block = packed.codes.T.reshape(inner // block, block, outer)
    codes = tape.weight(f"{name}/codes", _halves(by_block, axis=1))
    pairs = tape.weight(f"{name}/blocks", (packed.zeros | packed.steps << 4).T[:, None, :])
    blocks = _joined(tape, name, codes, axis=1)
    integers = _times_step(tape, name, blocks, pairs)
    integers = tape.node(f"{name}/int8", "Reshape", integers, tape.ints(inner, outer))
    scales = tape.weight(f"{name}/scales", packed.scales.astype(np.float16))
    scales = tape.node(f"{name}/scales/float", "Cast", scales, to=ir.DataType.FLOAT)
    return Matrix(integers, scales)


def _table(tape: Tape, name: str, array: Any, rounding: Rounding, *, block: int, multiplied: bool) -> _Table:
    """float32[rows, width] -> packed rows. The two halves of the width share bytes."""
    import numpy as np  # noqa: PLC0415

    width = array.shape[1]
    _divides(name, width, block, "table_block")
    packed = rounding.to_int4(array, block, paired=multiplied)
    codes = tape.weight(f"{name}/codes", _halves(packed.codes, axis=1))
    pairs = tape.weight(f"{name}/blocks", packed.zeros | packed.steps << 4)
    scales = tape.weight(f"{name}/scales", packed.scales.astype(np.float16)[:, None])
    return _Table(name, width, block, codes, pairs, scales)


@dataclass(frozen=True)
class _Table:
    """Rows are looked up packed and unpacked after, so that the table stays at 4 bits in memory too."""

    name: str
    width: int
    block: int
    codes: ir.Value
    """uint8[rows, width / 2]."""
    pairs: ir.Value
    """uint8[rows, width / block]: zero points in the low bits, steps in the high ones."""
    scales: ir.Value
    """float16[rows, 1]."""

    def rows(self, tape: Tape, take: Lookup, indices: ir.Value | None) -> ir.Value:
        """The looked-up rows, float32[..., width]."""
        import onnx_ir as ir  # noqa: PLC0415

        name = self.name
        integers = self._unpacked(tape, take("codes", self.codes), take("blocks", self.pairs))
        integers = tape.node(f"{name}/float", "Cast", integers, to=ir.DataType.FLOAT)
        shape = tape.node(f"{name}/leading", "Shape", indices)
        shape = tape.node(f"{name}/shape", "Concat", shape, tape.ints(self.width), axis=0)
        integers = tape.node(f"{name}/int8", "Reshape", integers, shape)
        scale = tape.node(f"{name}/scales/float", "Cast", take("scales", self.scales), to=ir.DataType.FLOAT)
        return tape.node(f"{name}/rows", "Mul", integers, scale)

    def turned(self, tape: Tape) -> Matrix:
        """The whole table unpacked to int8[width, rows] when the model is loaded."""
        from modelkit.graphs.quantized import turned_matrix  # noqa: PLC0415

        name = f"{self.name}/head"
        integers = replace(self, name=name)._unpacked(tape, self.codes, self.pairs)
        integers = tape.node(f"{name}/int8", "Reshape", integers, tape.ints(-1, self.width))
        return turned_matrix(tape, name, integers, self.scales)

    def _unpacked(self, tape: Tape, codes: ir.Value, pairs: ir.Value) -> ir.Value:
        """int8[rows, width / block, block]."""
        blocks = self.width // self.block
        pairs = tape.node(f"{self.name}/pairs", "Reshape", pairs, tape.ints(-1, blocks, 1))
        codes = _joined(tape, self.name, codes, axis=-1)
        codes = tape.node(f"{self.name}/by_block", "Reshape", codes, tape.ints(-1, blocks, self.block))
        return _times_step(tape, self.name, codes, pairs)


def _halves(codes: Any, axis: int) -> Any:
    """Two 4-bit codes per byte: the first half of `axis` in the low bits, the second half in the high ones."""
    import numpy as np  # noqa: PLC0415

    low, high = np.split(codes, 2, axis=axis)
    return low | high << 4


def _joined(tape: Tape, name: str, codes: ir.Value, *, axis: int) -> ir.Value:
    low, high = _nibbles(tape, f"{name}/codes", codes)
    return tape.node(f"{name}/joined", "Concat", low, high, axis=axis)


def _times_step(tape: Tape, name: str, blocks: ir.Value, pairs: ir.Value) -> ir.Value:
    zeros, steps = _nibbles(tape, f"{name}/blocks", pairs)
    centred = tape.node(f"{name}/centred", "Sub", blocks, zeros)
    return tape.node(f"{name}/stepped", "Mul", centred, steps)


def _nibbles(tape: Tape, name: str, packed: ir.Value) -> tuple[ir.Value, ir.Value]:
    import numpy as np  # noqa: PLC0415
    import onnx_ir as ir  # noqa: PLC0415

    low = tape.node(f"{name}/low/uint8", "BitwiseAnd", packed, tape.constant(15, np.uint8))
    high = tape.node(f"{name}/high/uint8", "BitShift", packed, tape.constant(4, np.uint8), direction="RIGHT")
    return (
        tape.node(f"{name}/low", "Cast", low, to=ir.DataType.INT8),
        tape.node(f"{name}/high", "Cast", high, to=ir.DataType.INT8),
    )


def _divides(name: str, width: int, block: int, option: str) -> None:
    # Two codes share a byte, so the width must be even as well; every block size is.
    if width % block:
        raise StageError(
            f"tensor '{name}' has {width} values along its inner axis, no multiple of the block of {block}",
            hint=f"choose a smaller `{option}` in the variant's scheme",
        )
