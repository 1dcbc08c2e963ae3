"""What a scheme leaves in float32 is left alone: biases, norms and tables are, bit for bit, the float32 model's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelkit.vocabulary import Subject, Verdict

VERSION = 1
PROMISE = "what is stored under the float32 model's own name and type is, bit for bit, what the float32 model stores"
WORST = 5


@dataclass(frozen=True)
class Options:
    """No limits."""


@dataclass(frozen=True)
class Changed:
    """A tensor of one name and type in both models, with other content."""

    name: str
    part: str
    max_abs: float
    """Largest difference of a number; infinite beside one that is not finite, and for another shape."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Compare every stored tensor that both models have. Skipped when they share none: everything was quantized."""
    from modelkit import graphs  # noqa: PLC0415
    from modelkit.errors import StageError  # noqa: PLC0415

    changed, shared = [], 0
    reference = graphs.parts(subject.reference.folder)
    for part, path in graphs.parts(subject.artifact.folder).items():
        try:
            for found in _compared(part, reference[part], path):
                shared += 1
                changed += [found] if found.max_abs else []
        except StageError as error:
            return Verdict("unquantized", "failed", f"{path.name} {error.message}")
    if not shared:
        return Verdict("unquantized", "skipped", "no tensor has the name and type it has in the float32 model")
    measured = {"tensors": shared, "changed": len(changed)}
    if not changed:
        return Verdict("unquantized", "passed", f"{shared} tensors, unchanged", measured)
    changed.sort(key=lambda one: (-one.max_abs, one.name))
    worst = tuple({"tensor": one.name, "part": one.part, "max_abs": one.max_abs} for one in changed[:WORST])
    more = f" ({len(changed)} such tensors)" if len(changed) > 1 else ""
    return Verdict(
        "unquantized", "failed", f"{changed[0].name} is not the float32 model's{more}", measured, worst=worst
    )


def _compared(part: str, reference: Path, artifact: Path) -> Iterator[Changed]:
    import numpy as np  # noqa: PLC0415

    from modelkit.graphs.surgery import Surgery  # noqa: PLC0415

    theirs, ours = Surgery(reference), Surgery(artifact)
    known = {tensor.name: tensor for tensor in theirs.tensors()}
    for tensor in ours.tensors():
        other = known.get(tensor.name)
        if other is None or other.data_type != tensor.data_type:
            continue
        one, two = ours.array(tensor), theirs.array(other)
        if one.shape == two.shape and one.tobytes() == two.tobytes():
            yield Changed(tensor.name, part, 0.0)
            continue
        far = np.abs(one.astype(np.float64) - two).max() if one.shape == two.shape and one.size else np.inf
        yield Changed(tensor.name, part, float(far) if np.isfinite(far) else float("inf"))
