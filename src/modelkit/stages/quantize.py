"""The third checkpoint, quantized: the model after the variant's scheme."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelkit import graphs, kinds, lock
from modelkit.stages.job import Job, code, tool

NAME, VERSION, INPUTS = "quantized", 1, ("converted",)


def material(job: Job, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Scheme and options, the digest of the converted model, and the tools that write."""
    scheme = kinds.load("schemes", job.variant.scheme.kind)
    return {
        "scheme": lock.options(job.variant.scheme),
        "scheme_version": scheme.VERSION,
        "inputs": dict(inputs),
        "tools": {name: tool(name) for name in scheme.TOOLS},
        "code": code(scheme, graphs),
    }


def run(job: Job, inputs: Mapping[str, Path], into: Path) -> None:
    """Every part by itself. Raises `StageError` when the scheme cannot hold the model."""
    scheme = job.variant.scheme
    quantize = kinds.load("schemes", scheme.kind).quantize
    for part in graphs.parts(inputs["converted"]):
        source, target = (graphs.checkpoint(folder, part) for folder in (inputs["converted"], into))
        target.mkdir(exist_ok=True)
        quantize(source, target, scheme.options)
