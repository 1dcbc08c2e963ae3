"""Does `modelkit bisect` name the node that was spoiled? 40 seeded faults in the real MiniLM, half of them in int4."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from bench.prepared import MANIFEST, folders
from bench.processes import WORK, python
from bench.report import against, table
from modelkit import bisecting, manifest, runtime
from modelkit.digests import digest_folder, digest_of
from modelkit.timing import peak_bytes
from modelkit.vocabulary import Artifact

CASES = 20
"""For each variant."""
Array = np.ndarray[Any, Any]


def larger(array: Array, _: np.random.Generator) -> Array:
    """All scales half as large again."""
    return (array * np.asarray(1.5, array.dtype)).astype(array.dtype)


def one_bit(array: Array, random: np.random.Generator) -> Array:
    """The highest bit of a scale's exponent that is zero."""
    flat = array.reshape(-1)
    place = int(random.integers(len(flat)))
    width = flat.dtype.itemsize * 8
    bits = flat.view(f"u{flat.dtype.itemsize}")
    exponent = range(width - 2, {16: 10, 32: 23}[width] - 1, -1)
    # Not the very highest: that makes it infinite, which anybody sees.
    bit = [bit for bit in exponent if not int(bits[place]) >> bit & 1][1]
    bits[place] |= bits.dtype.type(1 << bit)
    return array


def moved(array: Array, random: np.random.Generator) -> Array:
    """Every column in the place of another."""
    return np.roll(array, int(random.integers(1, array.shape[-1])), axis=-1)


def emptied(array: Array, random: np.random.Generator) -> Array:
    """A quarter of the columns in one code: nothing is left of them."""
    start = int(random.integers(array.shape[-1] * 3 // 4))
    array[..., start : start + array.shape[-1] // 4] = array[..., :1] * 0
    return array


FAULTS: dict[str, tuple[tuple[str, ...], Callable[[Array, np.random.Generator], Array]]] = {
    "scales times 1.5": (("scales",), larger),
    "a bit of a scale": (("scales",), one_bit),
    "columns moved": (("int8", "codes"), moved),
    "a quarter of the columns gone": (("int8", "codes"), emptied),
}
"""Name -> stored tensors of a matrix it may spoil, and how."""


def main() -> None:
    """Print the section. Cases and memory in processes of their own: to damage a file is not to bisect it."""
    rows, memory, hits, alarms = [], [], 0, 0
    for variant in ("int8", "int4"):
        cases, [summary] = _told("spoiled", variant), _told("clean", variant)
        memory.append(summary["memory"])
        alarms += summary["suspects"]
        seconds = np.median([case["seconds"] for case in cases])
        hits += sum(case["first"] for case in cases)
        for fault in FAULTS:
            of = [case for case in cases if case["fault"] == fault]
            rows.append((variant, fault, str(len(of)), str(sum(case["first"] for case in of)),
                         f"{np.median([case['share'] for case in of]):.2f}", f"{seconds:.1f}",
                         f"{summary['memory']:.2f}x"))  # fmt: skip
    print(
        f"## Bisecting\n\n{2 * CASES} seeded faults in finished MiniLM artifacts, each in one matrix drawn at random;\n"
        "it is named right when the first suspect, or else the first node, is the one that was spoiled.\n"
        "Memory is that of one run on the undamaged artifact: the largest resident size beyond that of the process\n"
        "with its libraries, in multiples of the float32 model's file.\n"
    )
    print(table(("variant", "fault", "cases", "named first", "median share", "seconds each", "memory"), rows))
    print(against([
        ("share of the seeded faults named first", hits / (2 * CASES), "{:.3f}", ">=", 0.95),
        ("suspects in the two clean artifacts", alarms, "{}", "<=", 0),
        ("memory, times the float32 model", max(memory), "{:.2f}x", "<=", 1.5),
    ]))  # fmt: skip


def _told(what: str, variant: str) -> list[dict[str, Any]]:
    lines = python("-m", "bench.bisect", what, variant).output.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def spoiled(variant: str) -> None:
    """One JSON line per case."""
    read, found = manifest.load(MANIFEST), folders()
    reference, clean = _artifact(found["converted"]), found[variant]
    random = np.random.default_rng(20 if variant == "int8" else 4)
    matrices = sorted(name.removesuffix("/scales") for name in _names(clean) if name.endswith(".weight/scales"))
    for number in range(CASES):
        fault = list(FAULTS)[number % len(FAULTS)]
        weight = str(random.choice(matrices))
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            damaged, place = Path(folder, "damaged"), Path(folder, "workspace")
            shutil.copytree(clean, damaged)
            place.mkdir()
            _spoil(damaged, weight, fault, random)
            start = perf_counter()
            report = bisecting.bisect(read, reference, _artifact(damaged), place, lambda *_: None)
            seconds = perf_counter() - start
        first = [*report.suspects, *report.findings][0]
        print(json.dumps({"fault": fault, "weight": weight, "first": weight in first.weights, "share": first.share,
                          "named": first.value, "seconds": seconds}))  # fmt: skip


def clean(variant: str) -> None:
    """One JSON line about the undamaged artifact."""
    read, found = manifest.load(MANIFEST), folders()
    reference, artifact = _artifact(found["converted"]), _artifact(found[variant])
    # The libraries are no part of the model.
    import tokenizers  # noqa: F401, PLC0415

    runtime.version()
    before = peak_bytes()
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        suspects = len(bisecting.bisect(read, reference, artifact, Path(place), lambda *_: None).suspects)
    size = sum(path.stat().st_size for path in found["converted"].glob("*.onnx*"))
    print(json.dumps({"suspects": suspects, "memory": (peak_bytes() - before) / size}))


def _names(folder: Path) -> list[str]:
    return [tensor.name for tensor in onnx.load(folder / "model.onnx").graph.initializer]


def _spoil(folder: Path, weight: str, fault: str, random: np.random.Generator) -> None:
    suffixes, edit = FAULTS[fault]
    path = folder / "model.onnx"
    path.chmod(0o644)
    proto = onnx.load(path)
    [tensor] = [one for one in proto.graph.initializer if one.name in {f"{weight}/{end}" for end in suffixes}]
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor).copy(), random), tensor.name))
    onnx.save(proto, path)


def _artifact(folder: Path) -> Artifact:
    files = digest_folder(folder)
    return Artifact(folder, digest_of(files), files)


if __name__ == "__main__":
    {"spoiled": spoiled, "clean": clean}[sys.argv[1]](sys.argv[2]) if sys.argv[1:] else main()
