"""What a scheme leaves in float32 is left alone: biases, norms and tables are, bit for bit, the float32 model's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modelkit.errors import CheckError, StageError
from modelkit.vocabulary import Subject, Verdict

VERSION = 2
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
    """Compare every stored tensor that both models have. Skipped when they share none: everything was quantized.

    Raises `CheckError` when the float32 model cannot be read.
    """
    from modelkit import graphs  # noqa: PLC0415

    changed, shared = [], 0
    reference, artifact = (graphs.parts(one.folder) for one in (subject.reference, subject.artifact))
    if {*reference} != {*artifact}:
        there, wanted = (", ".join(parts) or "none" for parts in (artifact, reference))
        return Verdict("unquantized", "failed", f"the artifact's parts are {there}, the float32 model's {wanted}")
    for part, path in artifact.items():
        try:
            for found in _compared(part, reference[part], path):
                shared += 1
                changed += [found] if found else []
        except StageError as error:
            return Verdict("unquantized", "failed", f"{path.name} {error.message}")
    if not shared:
        return Verdict("unquantized", "skipped", "no tensor has the name and type it has in the float32 model")
    measured = {"tensors": shared, "changed": len(changed)}
    if not changed:
        return Verdict("unquantized", "passed", f"{shared} tensors, unchanged", measured)
    changed.sort(key=lambda one: (-one.max_abs, one.name))
    worst = tuple({"tensor": one.name, "part": one.part, "max_abs": one.max_abs if math.isfinite(one.max_abs) else None}
                  for one in changed[:WORST])  # fmt: skip
    more = f" ({len(changed)} such tensors)" if len(changed) > 1 else ""
    return Verdict(
        "unquantized", "failed", f"{changed[0].name} is not the float32 model's{more}", measured, worst=worst
    )


def _compared(part: str, reference: Path, artifact: Path) -> Iterator[Changed | None]:
    """For each tensor with a name and a type that the reference has: how it differs, None where it does not."""
    from modelkit.graphs.surgery import Surgery  # noqa: PLC0415

    theirs, ours = _exact(lambda: Surgery(reference), reference), Surgery(artifact)
    # The bodies of an `If` may each have a tensor of one name.
    known: dict[tuple[str, int], list[Any]] = {}
    for tensor in theirs.tensors():
        known.setdefault((tensor.name, tensor.data_type), []).append(tensor)
    for tensor in ours.tensors():
        if others := known.get((tensor.name, tensor.data_type)):
            one = ours.array(tensor)
            exact = [_exact(partial(theirs.array, other), reference) for other in others]
            if any(_alike(one, two) for two in exact):
                yield None
            else:
                yield Changed(tensor.name, part, min(_far(one, two) for two in exact))


def _exact(read: Callable[[], Any], path: Path) -> Any:
    """What is read of the float32 model, which is not what is judged."""
    try:
        return read()
    except StageError as error:
        raise CheckError(f"the float32 model's {path.name} {error.message}", hint=error.hint) from error


def _alike(one: Any, two: Any) -> bool:
    """Whether two arrays are the same bit by bit; texts, whose arrays hold addresses, letter by letter."""
    if one.dtype == object:
        return bool(one.tolist() == two.tolist())
    return bool(one.shape == two.shape and one.tobytes() == two.tobytes())


def _far(one: Any, two: Any) -> float:
    import numpy as np  # noqa: PLC0415

    if one.shape != two.shape or not one.size or one.dtype == object:
        return math.inf
    far = float(np.abs(one.astype(np.float64) - two.astype(np.float64)).max())
    return far if math.isfinite(far) else math.inf
