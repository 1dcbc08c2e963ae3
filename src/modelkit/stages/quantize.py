"""The third checkpoint, quantized: the model after the variant's scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelkit import corpora, feeds, generation, graphs, kinds, lock
from modelkit.errors import CheckError, StageError
from modelkit.stages.job import Job, code, tool
from modelkit.vocabulary import Choice, Manifest

NAME, VERSION, INPUTS = "quantized", 1, ("converted",)


def material(job: Job, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Scheme and options, the digest of the converted model, the tools that write, and what it is calibrated on."""
    scheme = kinds.load("schemes", job.variant.scheme.kind)
    calibration = {"calibration": _calibration(job.manifest)} if _calibrates(job) else {}
    return {
        "scheme": lock.options(job.variant.scheme),
        "scheme_version": scheme.VERSION,
        "inputs": dict(inputs),
        "tools": {name: tool(name) for name in scheme.TOOLS},
        "code": code(scheme, graphs),
        **calibration,
    }


def _calibrates(job: Job) -> bool:
    return getattr(job.variant.scheme.options, "calibrates", False)


def _calibration(manifest: Manifest) -> dict[str, Any]:
    task = kinds.load("tasks", manifest.task.kind)
    return {
        "texts": _texts(manifest)[1],
        "task": lock.options(manifest.task),
        "tools": {name: tool(name) for name in ("tokenizers", "pillow")},
        "code": code(task, feeds, generation),
    }


def _texts(manifest: Manifest) -> tuple[list[str], str]:
    try:
        rows, digest = corpora.calibration(manifest)
    except CheckError as error:
        raise StageError(error.message, where=error.where, hint=error.hint) from error
    return [row["text"] for row in rows], digest


def run(job: Job, inputs: Mapping[str, Path], into: Path) -> None:
    """Every part by itself. Raises `StageError` when the scheme cannot hold the model."""
    from modelkit.graphs.float64 import Activations  # noqa: PLC0415

    scheme, converted = job.variant.scheme, inputs["converted"]
    fed = feeds_of(job.manifest, converted, _texts(job.manifest)[0]) if _calibrates(job) else {}
    paths = graphs.parts(converted)
    apply(scheme, converted, into, {part: Activations(paths[part], arrays) for part, arrays in fed.items()})


def apply(scheme: Choice, converted: Path, into: Path, activations: Mapping[str, Any]) -> None:
    """`scheme` on every part by itself; `activations` (of a part's graph) where the scheme calibrates."""
    quantize = kinds.load("schemes", scheme.kind).quantize
    for part in graphs.parts(converted):
        source, target = (graphs.checkpoint(folder, part) for folder in (converted, into))
        target.mkdir(exist_ok=True)
        quantize(source, target, scheme.options, *([activations[part]] if part in activations else []))


def forecast(choice: Choice, converted: Path) -> int:
    """Bytes that the model in the folder `converted`, all its parts, will have after the scheme `choice`.

    Within 2 %, for models of some megabytes. A scheme may know better than by the bits that it promises. Raises
    `StageError` when the scheme cannot hold the model.
    """
    from modelkit.graphs import DATA, MODEL  # noqa: PLC0415
    from modelkit.graphs.stored import matrices, opened  # noqa: PLC0415

    scheme, options = kinds.load("schemes", choice.kind), choice.options
    total = 0
    for part in graphs.parts(converted):
        source = graphs.checkpoint(converted, part)
        if hasattr(scheme, "forecast"):
            total += scheme.forecast(source, options)
            continue
        total += sum(path.stat().st_size for path in (source / MODEL, source / DATA) if path.exists())
        found = matrices(opened(source / MODEL))
        promised = getattr(scheme, "promised", lambda _, one: min(one.bits, scheme.BITS))
        total -= sum(one.values * (one.bits - promised(options, one)) // 8 for one in found)
    return total


def feeds_of(manifest: Manifest, converted: Path, texts: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Part -> what the task feeds it for `texts`, one by one, as far as no graph has to run for it."""
    listener = feeds.Listener(converted, manifest.task)
    found: dict[str, list[Mapping[str, Any]]] = {part: [] for part in graphs.parts(converted)}
    for feed in listener.feeds(lambda model: model.outputs(list(texts), batch_size=1)):
        if feed.given:
            found[feed.part].append(feed.arrays)
    return found
