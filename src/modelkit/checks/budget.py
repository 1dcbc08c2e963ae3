"""The model is no larger than its manifest allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelkit.vocabulary import UNCHANGED, Subject, Verdict

VERSION = 1
PROMISE = "the model (all its parts and data files) fits the variant's budget"
LARGEST = 12


@dataclass(frozen=True)
class Options:
    """The limit is the variant's own `budget`."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Skipped without a budget. A failure carries the account of the largest tensors."""
    from modelkit.graphs import model_files, parts  # noqa: PLC0415
    from modelkit.graphs.files import account  # noqa: PLC0415

    budget = subject.variant.budget
    if budget is None:
        return Verdict("budget", "skipped", "the variant declares no budget")
    files = subject.artifact.files
    size = sum(files[name].size for name in model_files(files))
    tensors = [row for path in parts(subject.artifact.folder).values() for row in account(path)]
    tensors.sort(key=lambda row: (-row[3], row[0]))
    measured = {"bytes": size, "tensor_bytes": sum(row[3] for row in tensors), "tensors": len(tensors)}
    margin = (budget - size) / budget
    if size <= budget:
        sentence = f"{size / 1e6:.2f} MB of {budget / 1e6:.2f} MB"
        return Verdict("budget", "passed", sentence, measured, {"bytes": budget}, margin)
    largest = ", ".join(f"{name} {nbytes / 1e6:.2f} MB" for name, _, _, nbytes in tensors[:3])
    sentence = f"{size:,} bytes are {size - budget:,} more than the budget of {budget:,}; largest: {largest}"
    if subject.variant.scheme.kind == UNCHANGED:
        sentence += f"; `modelkit tune {subject.manifest.name}/{subject.variant.name}` finds a scheme that fits"
    return Verdict("budget", "failed", sentence, measured, {"bytes": budget}, margin, _rows(tensors[:LARGEST]))


def _rows(tensors: list[tuple[str, str, tuple[int, ...], int]]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"tensor": name, "type": kind, "shape": list(shape), "bytes": nbytes} for name, kind, shape, nbytes in tensors
    )
