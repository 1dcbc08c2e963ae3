"""The artifacts beside float32 and onnxruntime's own int8: speed, load, memory and closeness on MiniLM's real weights.

Each model lives in a process of its own; the processes take turns, so that only one works at a time and what slows the
machine for a while slows all of them. A ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.prepared import folders
from bench.processes import HERE, WORK, python
from bench.report import against, table, tell
from bench.texts import BATCH, IN_BATCHES, ONE_BY_ONE

ROUNDS, LOADS = 13, 7
MODELS = {"fp32": "converted", "int8": "int8", "int4": "int4", "onnxruntime int8": "int8-dynamic"}


@dataclass
class Model:
    """A worker and what it measured."""

    path: Path
    tokenizer: Path
    process: subprocess.Popen[str] | None = None
    loads: list[dict[str, float]] = field(default_factory=list)
    rounds: dict[str, list[float]] = field(default_factory=lambda: {"once": [], "batches": []})

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
        """Of the model's files."""
        return sum(file.stat().st_size for file in self.path.parent.glob("model.onnx*")) / 1e6


def main() -> None:
    """Print the section."""
    found = folders()
    models = {
        name: Model(found[folder] / "model.onnx", found["converted"] / "tokenizer.json")
        for name, folder in MODELS.items()
    }
    for number in range(LOADS):
        for model in _order(models, number):
            model.start()
    tell(f"  loaded {LOADS} times each")
    close = _closeness(models)
    for what in ("once", "batches"):
        for number in range(ROUNDS + 1):
            for model in _order(models, number):
                taken = model.ask(what)["seconds"]
                if number:  # the first round warms up
                    model.rounds[what].append(taken)
        tell(f"  {ROUNDS} rounds of {what}")
    for model in models.values():
        model.stop()
    _print(models, close)


def _order(models: dict[str, Model], number: int) -> list[Model]:
    there = list(models.values())
    return there if number % 2 else there[::-1]


def _closeness(models: dict[str, Model]) -> dict[str, dict[str, float]]:
    for name, model in models.items():
        model.ask(f"vectors {WORK / name}.npz")
    files = [WORK / f"{name}.npz" for name in models]
    done = python("-m", "bench.closeness", *files).output
    return dict(zip(models, json.loads(done), strict=True))


def times(models: dict[str, Model], name: str, what: str) -> float:
    """How many times the speed of float32."""
    pairs = zip(models["fp32"].rounds[what], models[name].rounds[what], strict=True)
    return median(reference / own for reference, own in pairs)


def against_int8(models: dict[str, Model], name: str, what: str) -> float:
    """Of a figure told at each load, as a multiple of int8's."""
    return median(a[what] / b[what] for a, b in zip(models[name].loads, models["int8"].loads, strict=True))


def _print(models: dict[str, Model], close: dict[str, dict[str, float]]) -> None:
    print(f"""## Speed and closeness

Real weights, one thread, the session alone (token ids in, vectors out). Batch 1: {ONE_BY_ONE} texts from all over the
corpus, one by one; batch {BATCH}: {IN_BATCHES} texts, sorted by length. Median of {ROUNDS} rounds by turns, and of
{LOADS} loads in fresh processes. Closeness on the whole committed corpus; `batch` is the least
cosine between a text alone and in a padded batch of {BATCH} neighbours in the file.
""")
    print(table(
        ("model", "MB", "cosine mean", "p1", "min", "top-10", "batch", "speed, batch 1", f"batch {BATCH}",
         "ms per text", "load ms", "of int8", "resident MB", "of int8"),
        [_row(models, close, name) for name in models],
    ))  # fmt: skip
    before = models["fp32"].median_of("before") / 1e6
    print(f"Of the resident memory, {before:.0f} MB were there before the model was loaded (Python, numpy, "
          "onnxruntime, tokenizer).\n")  # fmt: skip
    shared: dict[str, Any] = {
        name: [
            (f"{name}: speed at batch 1", times(models, name, "once"), "{:.2f}x", ">=", 2.1),
            (f"{name}: batch invariance", close[name]["batch"], "{:.5f}", ">=", 0.9999),
        ]
        for name in ("int8", "int4")
    }
    print(against([
        *_limits(models, close, "int8", (23.0, 0.999, 0.998, 0.97)), *shared["int8"],
        (f"int8: speed at batch {BATCH}", times(models, "int8", "batches"), "{:.2f}x", ">=", 2.0),
        *_limits(models, close, "int4", (13.0, 0.992, 0.986, 0.92)), *shared["int4"],
        ("int4: load, times int8's", against_int8(models, "int4", "load"), "{:.2f}x", "<=", 2.5),
        ("int4: resident, times int8's", against_int8(models, "int4", "resident"), "{:.2f}x", "<=", 1.7),
    ]))  # fmt: skip


def _row(models: dict[str, Model], close: dict[str, dict[str, float]], name: str) -> list[str]:
    model, figures = models[name], close[name]
    return [
        name, f"{model.megabytes:.2f}",
        *(f"{figures[key]:.4f}" for key in ("mean", "p1", "min", "top10")), f"{figures['batch']:.5f}",
        f"{times(models, name, 'once'):.2f}x", f"{times(models, name, 'batches'):.2f}x",
        f"{median(model.rounds['once']) / ONE_BY_ONE * 1e3:.2f}",
        f"{model.median_of('load') * 1e3:.0f}", f"{against_int8(models, name, 'load'):.2f}x",
        f"{model.median_of('resident') / 1e6:.0f}", f"{against_int8(models, name, 'resident'):.2f}x",
    ]  # fmt: skip


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
