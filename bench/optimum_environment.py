"""The reference environment: optimum's exporter, in a virtual environment of its own (see optimum.txt)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.processes import HERE
from bench.report import tell

FOLDER = HERE / "build" / "optimum-env"
PINS = Path(__file__).with_name("optimum.txt")
READY = FOLDER / "ready"
"""Holds the pins it was made from; written last, so that half an environment is never used."""


def command() -> Path:
    """`optimum-cli` of the reference environment, which is made first if it is not there (about a minute, 1.3 GB)."""
    pins = PINS.read_text()
    if not READY.exists() or READY.read_text() != pins:
        _make(pins)
        READY.write_text(pins)
    return FOLDER / "bin" / "optimum-cli"


def _make(pins: str) -> None:
    tell("making the reference environment in build/optimum-env (about a minute, 1.3 GB)")
    torch = next(line for line in pins.splitlines() if line.startswith("torch=="))
    pip = [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet"]
    _do([sys.executable, "-m", "venv", "--clear", FOLDER])
    # torch first and alone: the resolver run of the others would bring its CUDA packages as well.
    _do([*pip, torch])
    _do([*pip, "-r", PINS])


def _do(parts: list[str | Path]) -> None:
    done = subprocess.run([str(part) for part in parts], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("ERROR")]
        sys.exit(f"the reference environment cannot be made: {lines[0] if lines else 'pip or venv failed'}")


if __name__ == "__main__":
    print(command().relative_to(HERE))
