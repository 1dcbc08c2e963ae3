"""How far apart two outputs of one text are, and what makes two sets of vectors beyond comparing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from modelkit import kinds
from modelkit.errors import CheckError
from modelkit.vocabulary import Manifest, Verdict

Distance = Callable[[Any, Any], Any]
"""float[rows, width] and float[rows, width] -> float64[rows], from 0 to 2; infinite where a row has a number that is
not finite."""


VECTORS, LOGITS = "cosine_min", "logits_min"
"""How the limits of a check end that hold the cosines of the one, and of the other."""


def of_task(manifest: Manifest) -> Distance:
    """By what the manifest's task gives. Every task gives vectors or logits; one that gives neither is not planned."""
    return of_vectors if "vectors" in kinds.load("tasks", manifest.task.kind).GIVES else of_logits


def figures(distance: Distance, largest: float, limits: Any) -> tuple[dict[str, float], Any]:
    """The largest distance, and the cosine that it makes under the name of the limit it is held against; and `limits`
    without the one for the other kind of outputs."""
    own, other = (VECTORS, LOGITS) if distance is of_vectors else (LOGITS, VECTORS)
    names = [field.name for field in fields(limits)]
    measured = {name: 1 - largest for name in names if name.endswith(own)}
    return {**measured, "one_minus_cosine": largest}, replace(
        limits, **{name: None for name in names if name.endswith(other)}
    )


def of_vectors(ours: Any, theirs: Any) -> Any:
    """One minus the cosine, row by row. A zero vector has a distance of 1 from every other, and from another one.

    Computed as half the square of the distance between the two vectors of length one, which is the same: a difference
    of one and a cosine would lose what is smaller than 1e-16, and could be negative.
    """
    import numpy as np  # noqa: PLC0415

    ours, theirs, finite = _finite(ours, theirs)
    there = ours.any(1) & theirs.any(1)
    return np.where(finite, np.where(there, ((unit(ours) - unit(theirs)) ** 2).sum(1) / 2, 1), np.inf)


def of_logits(ours: Any, theirs: Any) -> Any:
    """The same of each row less its own mean, which softmax does not see. Two rows that are constant are alike."""
    import numpy as np  # noqa: PLC0415

    ours, theirs, finite = _finite(ours, theirs)
    ours, theirs = (rows - rows.mean(1, keepdims=True) for rows in (ours, theirs))
    flat = ~ours.any(1), ~theirs.any(1)
    halves = ((unit(ours) - unit(theirs)) ** 2).sum(1) / 2
    return np.where(finite, np.where(flat[0] | flat[1], flat[0] != flat[1], halves), np.inf)


def _finite(ours: Any, theirs: Any) -> tuple[Any, Any, Any]:
    """Both in float64, with zeros for rows that are not finite in both, and which rows are."""
    import numpy as np  # noqa: PLC0415

    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    finite = np.isfinite(ours).all(1) & np.isfinite(theirs).all(1)
    return np.where(finite[:, None], ours, 0), np.where(finite[:, None], theirs, 0), finite


def refused(
    check: str, ours: Any, theirs: Any, rows: Sequence[Mapping[str, str]], one: str = "the vector"
) -> Verdict | None:
    """The failed verdict of vectors that have another shape than the float32 model's, or are not finite; else None.
    Of what else is compared, `one` says what it is called.

    Both are float64[len(rows), width]; `rows` have the ids. Raises `CheckError` when the float32 model's own are not
    finite.
    """
    import numpy as np  # noqa: PLC0415

    several = f"{one.rsplit(maxsplit=1)[-1]}s"
    if not np.isfinite(theirs).all():
        raise CheckError(f"the float32 model's own {several} are not finite", hint="look at the weights")
    if ours.shape != theirs.shape:
        sentence = f"the {several} have the shape {list(ours.shape)}, those of the float32 model {list(theirs.shape)}"
        return Verdict(check, "failed", sentence)
    if len(broken := np.flatnonzero(~np.isfinite(ours).all(1))):
        sentence = f"{one} of text {rows[broken[0]]['id']} is not finite ({len(broken)} such texts)"
        return Verdict(check, "failed", sentence)
    return None


def unit(rows: Any) -> Any:
    """float64[n, width], each row divided by its length; a zero vector stays one."""
    import numpy as np  # noqa: PLC0415

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def similarities(rows: Any) -> Any:
    """Cosine of every row with every row: float64[n, width] -> float64[n, n]; a zero vector has cosine 0.

    Rounded to nine decimals, so that equal texts do not trade places over the last bit.
    """
    import numpy as np  # noqa: PLC0415

    vectors = unit(rows)
    return np.round(vectors @ vectors.T, 9)
