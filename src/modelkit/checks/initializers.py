"""Nothing is stored that no output needs, and nothing twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import StageError
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Manifest, Subject, Verdict

if TYPE_CHECKING:
    import onnx_ir as ir

VERSION = 1
PROMISE = "every stored tensor leads to an output, and none is stored twice"
SMALLEST = 1024
"""Bytes; smaller tensors are what a graph computes with (shapes, axes, scalars), and cost nothing."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """Bytes that could be left out of the model."""

    dead_bytes: int = at_most(0)
    duplicate_bytes: int = at_most(0)


@dataclass(frozen=True)
class _Waste:
    """One tensor that could be left out."""

    part: str
    tensor: str
    bytes: int
    same_as: str = ""
    """The tensor it repeats; empty for one that is not needed at all."""
    turned: bool = False

    @property
    def why(self) -> str:
        if not self.same_as:
            return "leads to no output"
        return f"repeats {self.same_as}{', transposed' if self.turned else ''}"

    def told(self) -> dict[str, Any]:
        return {"tensor": self.tensor, "part": self.part, "bytes": self.bytes, "why": self.why}


def reads(manifest: Manifest) -> dict[str, Any]:  # noqa: ARG001
    """The code that finds stored tensors."""
    from modelkit.digests import digest_file  # noqa: PLC0415

    return {"stored": digest_file(Path(__file__).parents[1] / "graphs" / "stored.py").sha256}


def check(subject: Subject, limits: Options) -> Verdict:
    """Look at the stored tensors of every file, those in bodies, constants and functions too."""
    from modelkit.graphs import parts, stored  # noqa: PLC0415

    found: list[_Waste] = []
    count = size = 0
    for part, path in parts(subject.artifact.folder).items():
        try:
            model = stored.opened(path)
            tensors = list(stored.tensors(model))
            found += [*_dead(part, model, tensors), *_repeated(part, tensors)]
        except (StageError, OSError, ValueError) as error:
            return Verdict("initializers", "failed", f"{path.name} cannot be read: {getattr(error, 'message', error)}")
        count, size = count + len(tensors), size + sum(map(_size, tensors))
    return _verdict(found, count, size, limits)


def _verdict(found: Sequence[_Waste], count: int, size: int, limits: Options) -> Verdict:
    dead, repeated = ([one for one in found if bool(one.same_as) == twice] for twice in (False, True))
    measured = {
        "dead_bytes": sum(one.bytes for one in dead),
        "duplicate_bytes": sum(one.bytes for one in repeated),
        "dead": [one.tensor for one in dead],
        "duplicates": [one.tensor for one in repeated],
        "tensors": count,
        "tensor_bytes": size,
    }
    largest = sorted(found, key=lambda one: (-one.bytes, one.part, one.tensor))
    verdict = judge("initializers", measured, limits, tuple(one.told() for one in largest[:WORST]))
    if not found:
        # A distance of nothing to a limit of nothing would hide what other checks have to spare.
        return replace(verdict, sentence=f"{count} tensors, each needed, none twice", margin=None)
    wasted = sum(one.bytes for one in found)
    first = f"{largest[0].tensor} {largest[0].why}"
    return replace(verdict, sentence=f"{wasted:,} of {size:,} bytes could be left out: {first} ({verdict.sentence})")


def _dead(part: str, model: ir.Model, tensors: Iterable[ir.Value]) -> Iterator[_Waste]:
    needed = _needed(model)
    for value in tensors:
        if value not in needed and _size(value) >= SMALLEST:
            yield _Waste(part, str(value.name), _size(value))


def _needed(model: ir.Model) -> set[ir.Value]:
    """Every value that an output of the graph, or of a function, depends on."""
    found: set[ir.Value] = set()
    open_ = [*model.graph.outputs, *(value for each in model.functions.values() for value in each.outputs)]
    while open_:
        value = open_.pop()
        if value in found:
            continue
        found.add(value)
        if (node := value.producer()) is not None:
            open_ += [one for one in node.inputs if one is not None]
            # A node that is needed needs what its bodies give, and these read values of the graph around them.
            open_ += [one for body in _bodies(node) for one in body.outputs]
    return found


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    import onnx_ir as ir  # noqa: PLC0415

    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _repeated(part: str, tensors: Iterable[ir.Value]) -> Iterator[_Waste]:
    """Tensors that have the bytes of an earlier one, as they are or transposed."""
    alike: dict[object, list[ir.Value]] = defaultdict(list)
    for value in tensors:
        if _size(value) >= SMALLEST and value.const_value is not None:
            alike[value.const_value.dtype, _size(value)].append(value)
    for group in (group for group in alike.values() if len(group) > 1):
        yield from _repeated_among(part, group)


def _repeated_among(part: str, group: Sequence[ir.Value]) -> Iterator[_Waste]:
    shapes = {_shape(value) for value in group}
    first: dict[bytes, ir.Value] = {}
    turned: dict[bytes, ir.Value] = {}
    for value in group:
        content = _digest(value)
        if content is None:
            continue
        if content in first or content in turned:
            other = first.get(content) or turned[content]
            yield _Waste(part, str(value.name), _size(value), str(other.name), content not in first)
            continue
        first[content] = value
        shape = _shape(value)
        # Only where something has that form: turning every matrix would double the work.
        if len(shape) == 2 and shape[::-1] in (shapes if shape[0] == shape[1] else shapes - {shape}):
            turned.setdefault(_digest_turned(value), value)


def _digest(value: ir.Value) -> bytes | None:
    """Of the tensor's bytes; None for a vector of one number over and over, such as the zero points that
    onnxruntime's quantizer gives to every matrix."""
    from hashlib import sha256  # noqa: PLC0415

    assert value.const_value is not None  # `stored.tensors` gives no other
    content = value.const_value.tobytes()
    one = int(max(1, value.const_value.dtype.itemsize))
    is_vector = sum(length != 1 for length in _shape(value)) <= 1
    if is_vector and content == content[:one] * (len(content) // one):
        return None
    return sha256(content).digest()


def _digest_turned(value: ir.Value) -> bytes:
    from hashlib import sha256  # noqa: PLC0415

    assert value.const_value is not None
    return sha256(value.const_value.numpy().T.tobytes()).digest()


def _shape(value: ir.Value) -> tuple[int, ...]:
    assert value.const_value is not None
    return tuple(value.const_value.shape.numpy())


def _size(value: ir.Value) -> int:
    import onnx_ir as ir  # noqa: PLC0415

    # Texts have no fixed length, and are no weights.
    held = value.const_value
    return 0 if held is None or held.dtype == ir.DataType.STRING else int(held.nbytes)
