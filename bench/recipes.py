"""MiniLM quantized by our recipes and by those in use today, each in a process of its own: files, seconds, peak memory.

`python -m bench.recipes NAME CONVERTED FOLDER` makes one.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.export import empty
from bench.prepared import MANIFEST
from bench.processes import WORK, Ran, by_turns, optimum_command, python, run

ROUNDS = 3
OURS = ("int8", "int4")
"""Variants of the manifest."""
STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "dynamic, default": ("int8-dynamic", {"per_channel": False}),
    "dynamic, per channel": ("int8-dynamic", {}),
    "dynamic, per channel, 7 bits": ("int8-dynamic", {"reduce_range": True}),
    "static (QDQ)": ("int8-static", {}),
    "MatMulNBits 8, block 128": ("matmul-nbits", {"bits": 8, "block": 128}),
    "MatMulNBits 4, block 32": ("matmul-nbits", {}),
    "MatMulNBits 4, block 32, level 4": ("matmul-nbits", {"accuracy_level": 4}),
}
"""Name -> scheme and options: onnxruntime's own quantizers. The one with 7 bits is the hub's usual recipe."""
OPTIMUM = "optimum, avx512_vnni per channel"


def quantized(downloaded: Path, converted: Path) -> tuple[dict[str, Path], dict[str, list[Ran]]]:
    """Name -> the model's file, and the runs that made it; `fp32` is the converted model in one file, without a run."""
    room = empty(WORK / "recipes")
    folders = {name: room / name.replace(", ", "-").replace(" ", "-") for name in ("fp32", *OURS, *STOCK, OPTIMUM)}
    python("-m", "bench.recipes", "fp32", converted, folders["fp32"])
    shutil.copy(downloaded / "config.json", folders["fp32"])  # which optimum reads
    contestants: dict[str, Callable[[], Ran]] = {
        name: partial(python, "-m", "bench.recipes", name, converted, folders[name]) for name in (*OURS, *STOCK)
    }
    command = ("onnxruntime", "quantize", "--onnx_model", folders["fp32"], "--avx512_vnni", "--per_channel")
    contestants[OPTIMUM] = partial(
        run, [optimum_command(), *command, "-o", folders[OPTIMUM]], HF_HUB_OFFLINE="1"
    )  # fmt: skip
    runs = by_turns(ROUNDS, contestants, warm_up=False)
    return {name: next(folder.glob("model*.onnx")) for name, folder in folders.items()}, runs


def make(name: str, converted: Path, folder: Path) -> None:
    """In the process of its own: what the quantize stage does, and the finished file."""
    from modelkit import kinds, manifest  # noqa: PLC0415
    from modelkit.graphs import files  # noqa: PLC0415
    from modelkit.stages import quantize  # noqa: PLC0415
    from modelkit.stages.job import Job  # noqa: PLC0415
    from modelkit.vocabulary import Choice  # noqa: PLC0415

    read = manifest.load(MANIFEST)
    variant = read.variants[name if name in OURS else OURS[0]]
    if name not in OURS:
        kind, options = STOCK.get(name, (name, {}))
        variant = replace(variant, scheme=Choice(kind, kinds.load("schemes", kind).Options(**options)))
    checkpoint = empty(folder.with_name(f"{folder.name}-checkpoint"))
    quantize.run(Job(read, variant, {}), {"converted": converted}, checkpoint)
    files.finish(checkpoint, empty(folder))


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
