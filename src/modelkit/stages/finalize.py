"""The fourth checkpoint, finalized: one folder with all that a consumer needs and the sums to check it by."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelkit import graphs, model
from modelkit.digests import digest_folder
from modelkit.graphs import DATA, MODEL
from modelkit.stages.job import Job, code, tool

NAME, VERSION, INPUTS = "finalized", 1, ("converted", "quantized")
SUMS = model.SUMS


def material(job: Job, inputs: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001
    """The digests of what is put together."""
    return {"inputs": dict(inputs), "tools": {name: tool(name) for name in ("onnx", "protobuf")}, "code": code(graphs)}


def run(job: Job, inputs: Mapping[str, Path], into: Path) -> None:  # noqa: ARG001
    """Each part of the quantized model as one file, and the converted model's companions."""
    from modelkit.graphs import files  # noqa: PLC0415

    for part in graphs.parts(inputs["quantized"]):
        files.finish(graphs.checkpoint(inputs["quantized"], part), into, part)
    for path in sorted(inputs["converted"].iterdir()):
        if path.is_file() and path.name not in (MODEL, DATA):
            shutil.copyfile(path, into / path.name)
    write_sums(into)


def write_sums(folder: Path) -> None:
    """Write down the digests of all files of `folder` but the sums themselves."""
    sums = [f"{entry.sha256}  {name}\n" for name, entry in digest_folder(folder).items() if name != SUMS]
    (folder / SUMS).write_bytes("".join(sums).encode())
