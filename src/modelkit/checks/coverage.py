"""What the scheme promises to make small is small: no matrix is left over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import StageError
from modelkit.limits import at_least, judge
from modelkit.vocabulary import Choice, Manifest, Subject, Verdict

if TYPE_CHECKING:
    from modelkit.graphs.stored import Matrix

VERSION = 1
PROMISE = "every matrix, kernel and table that the scheme promises to quantize has no more bits than it promises"
FLOAT = 32
"""Bits of what is not quantized at all."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """Of all values in matrices, kernels and tables, those that are stored in as few bits as the scheme promises."""

    share: float = at_least(1.0)


@dataclass(frozen=True)
class _Judged:
    """One matrix beside what is promised of it."""

    part: str
    matrix: Matrix
    promised: int
    """Bits per value."""

    @property
    def kept(self) -> bool:
        return self.matrix.bits <= self.promised

    def told(self, bits: int) -> dict[str, Any]:
        matrix = self.matrix
        return {
            "tensor": matrix.stored.name,
            "part": self.part,
            "shape": list(matrix.tensor.shape.numpy()),
            "bits": matrix.bits,
            "promised": self.promised,
            "values": matrix.values,
            "read_by": f"{matrix.reader.op_type} {matrix.reader.name}".strip(),
            "left_out_by_recipe": self.kept and matrix.bits > bits,
        }


def reads(manifest: Manifest) -> dict[str, Any]:
    """The code that finds matrices, and that of the schemes, which says what they promise."""
    from modelkit import kinds  # noqa: PLC0415
    from modelkit.digests import digest_file  # noqa: PLC0415

    graphs = Path(__file__).parents[1] / "graphs"
    schemes = {kind: str(kinds.load("schemes", kind).__file__) for kind in _schemes(manifest)}
    paths = {**schemes, **{name: str(graphs / f"{name}.py") for name in ("stored", "per_token")}}
    return {name: digest_file(Path(path)).sha256 for name, path in paths.items()}


def _schemes(manifest: Manifest) -> list[str]:
    return sorted({variant.scheme.kind for variant in manifest.variants.values()})


def check(subject: Subject, limits: Options) -> Verdict:
    """Find what the nodes multiply with and look up in, and hold its bits against the scheme's promise."""
    from modelkit import kinds  # noqa: PLC0415

    scheme = subject.variant.scheme
    module = kinds.load("schemes", scheme.kind)
    bits = getattr(module, "BITS", None)
    if bits is None or bits >= FLOAT:
        said = "does not say how many bits it promises" if bits is None else "promises no fewer bits than float32 has"
        return Verdict("coverage", "skipped", f"the scheme {scheme.kind} {said}")
    try:
        found = list(_judged(subject, _promises(module, scheme)))
    except (StageError, OSError) as error:
        return Verdict("coverage", "failed", f"it cannot be read: {getattr(error, 'message', error)}")
    if not found:
        return Verdict("coverage", "skipped", "the model neither multiplies with a stored matrix nor looks rows up")
    return _verdict(found, bits, limits)


def _promises(module: Any, scheme: Choice) -> Callable[[Matrix], int]:
    """Matrix -> bits per value that the scheme promises: `BITS`, if its module does not say more."""
    if not hasattr(module, "promised"):
        return lambda _: int(module.BITS)
    return lambda matrix: int(module.promised(scheme.options, matrix))


def _judged(subject: Subject, promised: Callable[[Matrix], int]) -> Iterator[_Judged]:
    from modelkit.graphs import parts, stored  # noqa: PLC0415

    for part, path in parts(subject.artifact.folder).items():
        for matrix in stored.matrices(stored.opened(path)):
            yield _Judged(part, matrix, promised(matrix))


def _verdict(found: Sequence[_Judged], bits: int, limits: Options) -> Verdict:
    values = sum(one.matrix.values for one in found)
    more = sorted((one for one in found if one.matrix.bits > bits), key=lambda one: (one.kept, -one.matrix.values))
    measured = {
        "share": sum(one.matrix.values for one in found if one.kept) / values,
        "quantized": sum(one.matrix.values for one in found if one.matrix.bits <= bits) / values,
        "quantized_bytes": _bytes(one for one in found if one.matrix.bits <= bits) / _bytes(found),
        "promised_bits": bits,
        "bits": sum(one.matrix.values * one.matrix.bits for one in found) / values,
        "matrices": len(found),
        "values": values,
        "left_out_by_recipe": [one.matrix.stored.name for one in more if one.kept],
        "missed": [one.matrix.stored.name for one in more if not one.kept],
    }
    verdict = judge("coverage", measured, limits, tuple(one.told(bits) for one in more[:WORST]))
    broken = [one for one in more if not one.kept]
    if not broken:
        # Nothing is missed: a distance of nothing to a limit of nothing would hide what other checks have to spare.
        return replace(verdict, sentence=_told(measured, bits), margin=None)
    return verdict if verdict.outcome == "passed" else _naming(verdict, broken)


def _told(measured: Mapping[str, Any], bits: int) -> str:
    left = len(measured["left_out_by_recipe"])
    rest = f"; the recipe leaves {left} out on purpose" if left else ""
    return f"{measured['quantized']:.2%} of all values have {bits} bits{rest}"


def _naming(verdict: Verdict, broken: Sequence[_Judged]) -> Verdict:
    first = broken[0]
    names = f"{first.matrix.stored.name} has {first.matrix.bits} bits per value where {first.promised} are promised"
    others = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
    return replace(verdict, sentence=f"{verdict.sentence}: {names}{others}")


def _bytes(found: Iterable[_Judged]) -> float:
    return sum(one.matrix.values * one.matrix.bits / 8 for one in found)
