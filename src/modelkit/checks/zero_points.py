"""What was quantized around a zero point is computed with around the same one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelkit.errors import StageError
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = 2
PROMISE = "every integer product and dequantization subtracts the zero point its operand was quantized with"
OPERANDS = {
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), ((0, 2), (1, 3))),
    "DequantizeLinear": ((0, 2),),
    **dict.fromkeys(("QLinearMatMul", "QLinearConv"), ((0, 2), (3, 5))),
}
"""Operator -> places of its integer operands and of their zero points, https://onnx.ai/onnx/operators/."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """No limits: two zero points are the same or they are not."""


@dataclass(frozen=True)
class _Pair:
    """An operand that a node of the same graph quantized."""

    part: str
    reader: str
    subtracted: str
    quantized_with: str
    """Each the zero point: its number, or what it is where it is computed or has many."""
    same: bool


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Follow each integer operand back to what quantized it. Skipped when no graph quantizes its own values."""
    from modelkit.graphs import parts, stored  # noqa: PLC0415

    found: list[_Pair] = []
    for part, path in parts(subject.artifact.folder).items():
        try:
            found += _pairs(part, stored.opened(path))
        except (StageError, OSError) as error:
            return Verdict("zero-points", "failed", f"it cannot be read: {getattr(error, 'message', error)}")
    if not found:
        return Verdict("zero-points", "skipped", "no graph computes with integers that it quantizes itself")
    wrong = [pair for pair in found if not pair.same]
    measured = {"operands": len(found), "wrong": len(wrong)}
    if not wrong:
        return Verdict("zero-points", "passed", f"{len(found)} operands, each around its own zero point", measured)
    first = wrong[0]
    sentence = f"{first.reader} subtracts {first.subtracted} from what was quantized around {first.quantized_with}"
    more = f" ({len(wrong)} such operands)" if len(wrong) > 1 else ""
    worst = tuple({"node": pair.reader, "part": pair.part, "subtracted": pair.subtracted,
                   "quantized_with": pair.quantized_with} for pair in wrong[:WORST])  # fmt: skip
    return Verdict("zero-points", "failed", sentence + more, measured, worst=worst)


def _pairs(part: str, model: ir.Model) -> Iterator[_Pair]:
    from modelkit.graphs import stored  # noqa: PLC0415

    list(stored.tensors(model))  # so that what Constant nodes hold is known as well
    for node in stored.nodes(model):
        for operand, zero in OPERANDS.get(node.op_type, ()):
            if operand >= len(node.inputs) or (quantizer := _quantizer(node.inputs[operand])) is None:
                continue
            ours, theirs = _input(node, zero), _zero_of(quantizer)
            if (same := _same(ours, theirs)) is not None:
                yield _Pair(part, node.name or node.outputs[0].name or "", _told(ours), _told(theirs), same)


def _quantizer(value: ir.Value | None) -> ir.Node | None:
    """The node that made integers of what is now `value`, or a part of it in another order."""
    from modelkit.graphs.stored import MOVES  # noqa: PLC0415

    while value is not None and (node := value.producer()) is not None:
        if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
            return node
        if node.op_type not in MOVES:
            return None
        value = node.inputs[0]
    return None


def _zero_of(quantizer: ir.Node) -> ir.Value | None:
    return quantizer.outputs[2] if quantizer.op_type == "DynamicQuantizeLinear" else _input(quantizer, 2)


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _same(ours: ir.Value | None, theirs: ir.Value | None) -> bool | None:
    """Whether both are one value or store the same numbers; None for two that are computed apart, which cannot be
    told from here."""
    import numpy as np  # noqa: PLC0415

    if ours is theirs:
        return True
    one, other = _numbers(ours), _numbers(theirs)
    if one is None and other is None:
        return None
    if one is None or other is None:
        return False
    # One number stands for as many as there are of the other.
    return (1 in (one.size, other.size) or one.size == other.size) and bool(np.equal(one, other).all())


def _numbers(zero: ir.Value | None) -> Any:
    """int64[n] of what is stored; one 0 where the operator's default stands; None for what is computed."""
    import numpy as np  # noqa: PLC0415

    if zero is None:
        return np.zeros(1, np.int64)
    return None if zero.const_value is None else zero.const_value.numpy().astype(np.int64).ravel()


def _told(zero: ir.Value | None) -> str:
    numbers = _numbers(zero)
    if numbers is not None and (numbers == numbers[0]).all():
        return str(int(numbers[0]))
    name = zero.name if zero is not None else ""
    return f"the computed {name}" if numbers is None else f"the numbers of {name}"
