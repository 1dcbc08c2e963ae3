"""Our artifacts beside float32 and the recipes in use today: size, closeness, speed, load, memory, on MiniLM's weights.

Each model lives in a process of its own; the processes take turns, so that only one works at a time and what slows the
machine for a while slows all of them. A ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.pictures import scatter
from bench.prepared import folders
from bench.processes import HERE, WORK, Ran, peak, python, seconds
from bench.recipes import OURS, quantized
from bench.recipes import ROUNDS as QUANTIZED
from bench.report import against, table, tell
from bench.texts import BATCH, IN_BATCHES, ONE_BY_ONE

ROUNDS, LOADS = 13, 7
ORDERS = ("once 1", "batches 1", "once 2", "batches 2")
"""What a worker is told: texts one by one or in batches, and the number of threads."""
PICTURE = Path(__file__).with_name("frontier.svg")


@dataclass
class Model:
    """A worker and what it measured."""

    path: Path
    tokenizer: Path
    process: subprocess.Popen[str] | None = None
    loads: list[dict[str, float]] = field(default_factory=list)
    rounds: dict[str, list[float]] = field(default_factory=lambda: {order: [] for order in ORDERS})

    def start(self) -> None:
        """Load it in a fresh process."""
        self.stop()
        command = [sys.executable, "-m", "bench.worker", str(self.path), str(self.tokenizer)]
        self.process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.loads.append(self._answer())

    def ask(self, order: str) -> dict[str, float]:
        """One order, one answer."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End the worker, if there is one."""
        if self.process:
            self.process.communicate()
            self.process = None

    def _answer(self) -> dict[str, float]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the worker of {self.path.parent.name} ended early")
        return dict(json.loads(line))

    def median_of(self, name: str) -> float:
        """Of what was told at each load."""
        return median(load[name] for load in self.loads)

    @property
    def megabytes(self) -> float:
        """Of the model's file."""
        return self.path.stat().st_size / 1e6


def main() -> None:
    """Print the section and draw its picture."""
    found = folders()
    paths, made = quantized(found["downloaded"], found["converted"])
    for name in OURS:
        if paths[name].read_bytes() != (found[name] / "model.onnx").read_bytes():
            sys.exit(f"{name} is not what the lock names")
    models = {name: Model(path, found["converted"] / "tokenizer.json") for name, path in paths.items()}
    for number in range(LOADS):
        for model in _order(models, number):
            model.start()
    tell(f"  loaded {LOADS} times each")
    close = _closeness(models)
    for order in ORDERS:
        for number in range(ROUNDS + 1):
            for model in _order(models, number):
                taken = model.ask(order)["seconds"]
                if number:  # the first round warms up
                    model.rounds[order].append(taken)
        tell(f"  {ROUNDS} rounds of {order}")
    for model in models.values():
        model.stop()
    _print(models, close, made)
    scatter(
        {name: (model.megabytes, 1 - close[name]["mean"], times(models, name, "once 1"))
         for name, model in models.items() if name != "fp32"},
        OURS, PICTURE,
    )  # fmt: skip


def _order(models: dict[str, Model], number: int) -> list[Model]:
    there = list(models.values())
    return there if number % 2 else there[::-1]


def _closeness(models: dict[str, Model]) -> dict[str, dict[str, float]]:
    for name, model in models.items():
        model.ask(f"vectors {WORK / name}.npz")
    files = [WORK / f"{name}.npz" for name in models]
    done = python("-m", "bench.closeness", *files).output
    return dict(zip(models, json.loads(done), strict=True))


def times(models: dict[str, Model], name: str, order: str) -> float:
    """How many times the speed of float32 with as many threads."""
    pairs = zip(models["fp32"].rounds[order], models[name].rounds[order], strict=True)
    return median(reference / own for reference, own in pairs)


def against_int8(models: dict[str, Model], name: str, what: str) -> float:
    """Of a figure told at each load, as a multiple of int8's."""
    return median(a[what] / b[what] for a, b in zip(models[name].loads, models["int8"].loads, strict=True))


def _print(models: dict[str, Model], close: dict[str, dict[str, float]], made: Mapping[str, list[Ran]]) -> None:
    print(f"""## Size, closeness and speed

`int8` and `int4` are the manifest's variants, the others what is in use today: onnxruntime's quantizers, and optimum's
command. Closeness on the whole committed corpus, of which no recipe was calibrated or chosen on a text; `batch` is the
least cosine between a text alone and in a padded batch of {BATCH} neighbours in the file. Quantizing the converted
model in a process of its own, median of {QUANTIZED} runs by turns.
""")
    print(table(
        ("model", "MB", "cosine mean", "p1", "min", "top-10", "Spearman", "batch", "quantized in s", "peak MB"),
        [
            [name, f"{model.megabytes:.2f}",
             *(f"{close[name][key]:.4f}" for key in ("mean", "p1", "min", "top10", "spearman")),
             f"{close[name]['batch']:.5f}",
             *((f"{seconds(made[name]):.1f}", f"{peak(made[name]) / 1e6:.0f}") if name in made else ("", ""))]
            for name, model in models.items()
        ],
    ))  # fmt: skip
    print(f"![What each recipe costs in bytes and in closeness; the colour is its speed]({PICTURE.name})\n")
    print(f"""The session alone (token ids in, vectors out), in times of float32's speed with as many threads. Batch 1:
{ONE_BY_ONE} texts from all over the corpus, one by one; batch {BATCH}: {IN_BATCHES} texts, sorted by length. Median of
{ROUNDS} rounds by turns, and of {LOADS} loads in fresh processes.
""")
    print(table(
        ("model", "1 thread, batch 1", f"batch {BATCH}", "2 threads, batch 1", f"batch {BATCH}",
         "ms per text, 1 thread", "load ms", "of int8", "resident MB", "of int8"),
        [
            [name, *(f"{times(models, name, order):.2f}x" for order in ORDERS),
             f"{median(model.rounds['once 1']) / ONE_BY_ONE * 1e3:.2f}",
             f"{model.median_of('load') * 1e3:.0f}", f"{against_int8(models, name, 'load'):.2f}x",
             f"{model.median_of('resident') / 1e6:.0f}", f"{against_int8(models, name, 'resident'):.2f}x"]
            for name, model in models.items()
        ],
    ))  # fmt: skip
    before = models["fp32"].median_of("before") / 1e6
    print(f"Of the resident memory, {before:.0f} MB were there before the model was loaded (Python, numpy, "
          "onnxruntime, tokenizer).\n")  # fmt: skip
    shared: dict[str, Any] = {
        name: [
            (f"{name}: speed at batch 1", times(models, name, "once 1"), "{:.2f}x", ">=", 2.1),
            (f"{name}: batch invariance", close[name]["batch"], "{:.5f}", ">=", 0.9999),
        ]
        for name in OURS
    }
    print(against([
        *_limits(models, close, "int8", (23.0, 0.999, 0.998, 0.97)), *shared["int8"],
        (f"int8: speed at batch {BATCH}", times(models, "int8", "batches 1"), "{:.2f}x", ">=", 2.0),
        *_limits(models, close, "int4", (13.0, 0.992, 0.986, 0.92)), *shared["int4"],
        ("int4: load, times int8's", against_int8(models, "int4", "load"), "{:.2f}x", "<=", 2.5),
        ("int4: resident, times int8's", against_int8(models, "int4", "resident"), "{:.2f}x", "<=", 1.7),
        ("int4: bytes, times int8's", models["int4"].megabytes / models["int8"].megabytes, "{:.3f}x", "<=", 0.6),
    ]))  # fmt: skip


def _limits(
    models: dict[str, Model], close: dict[str, dict[str, float]], name: str, limits: tuple[float, float, float, float]
) -> list[Any]:
    figures = close[name]
    return [
        (f"{name}: MB", models[name].megabytes, "{:.2f}", "<=", limits[0]),
        (f"{name}: cosine mean", figures["mean"], "{:.4f}", ">=", limits[1]),
        (f"{name}: cosine p1", figures["p1"], "{:.4f}", ">=", limits[2]),
        (f"{name}: top-10", figures["top10"], "{:.4f}", ">=", limits[3]),
    ]


if __name__ == "__main__":
    main()
