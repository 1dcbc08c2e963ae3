"""A virtual environment from the lock `requirements.txt`: optimum and today's huggingface_hub exclude each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from modelkit.digests import digest_file
from modelkit.durable import locked
from modelkit.errors import StageError
from modelkit.vocabulary import Progress

PINS = Path(__file__).with_name("requirements.txt")
IMPORTS = ("torch", "transformers", "optimum.exporters.onnx")
"""What has to be importable in it: a torch built for CUDA installs anywhere, and fails here."""
NEEDED = 3_000_000_000
"""Bytes that are free before it is made: what pip unpacks aside, and what stays (1.1 GB)."""
NAMED = "MODELKIT_REFERENCE"
"""Environment variable with the folder of an environment that exists already; it has to hold what the lock says."""
MAKE = "modelkit exporters --make optimum"

LISTING = """
import json
from importlib.metadata import distributions
print(json.dumps({one.metadata["Name"]: one.version for one in distributions()}))
"""


def python(progress: Progress | None = None) -> Path:
    """The environment's interpreter; the environment is made first when it is missing (about a minute, 1.1 GB).

    Any number of processes may ask at once: one makes it, the others wait. Raises `StageError` when it cannot be made,
    or when the one that MODELKIT_REFERENCE names holds other packages than the lock.
    """
    if existing := find():
        return existing
    place = folder()
    _make_room(place)
    with locked(place.with_suffix(".lock")):
        if not (existing := find()):
            _make(place, progress)
            existing = interpreter(place)
    return existing


def find() -> Path | None:
    """The interpreter of the environment when it is ready; nothing is made. Raises as `python` does."""
    place = folder()
    if os.environ.get(NAMED):
        _insist(place)
    elif not _is_ready(place):
        return None
    return interpreter(place)


def folder() -> Path:
    """Where it is, or would be: the lock's digest is in the name, so another lock is another environment."""
    if named := os.environ.get(NAMED):
        return Path(named).expanduser().absolute()
    return home() / lock_digest()[:16]


def home() -> Path:
    """The folder for everything that belongs to the reference, in the user's cache."""
    from platformdirs import user_cache_path  # noqa: PLC0415

    return user_cache_path("modelkit") / "reference"


def interpreter(place: Path) -> Path:
    """Its Python, which may be missing."""
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def lock_digest() -> str:
    """sha256 of the lock."""
    return digest_file(PINS).sha256


def pins() -> dict[str, str]:
    """Distribution -> version, as the lock has them."""
    lines = [line for line in PINS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("==", 1) for line in lines)


def size(place: Path) -> int:
    """Bytes of all files below `place`, about; files may come and go meanwhile."""
    total = 0
    for above, _, names in os.walk(place):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(Path(above, name)).st_size
    return total


def _is_ready(place: Path) -> bool:
    """Whether it was made to the end, from this lock, and the Python it was made with is still there."""
    marker = place / "ready"
    return marker.is_file() and marker.read_text() == lock_digest() and interpreter(place).exists()


def _insist(place: Path) -> None:
    if not interpreter(place).exists():
        raise StageError(f"{NAMED} names no virtual environment", where=place, hint=f"unset {NAMED}, or correct it")
    if wrong := _differences(_installed(interpreter(place)), pins()):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise StageError(
            f"{wrong[0]}{more}", where=place, hint=f"install {PINS.name} there again with --no-deps, or unset {NAMED}"
        )


@cache
def _installed(interpreter: Path) -> dict[str, str]:
    try:
        done = subprocess.run([interpreter, "-I", "-c", LISTING], capture_output=True, text=True, check=True)
        return {_canonical(name): version for name, version in json.loads(done.stdout).items() if name}
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise StageError("is no Python that runs", where=interpreter, hint=f"unset {NAMED}, or correct it") from error


def _differences(installed: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """One line for each pinned distribution that is missing or another; builds of a version (`+cpu`) are equal."""
    found = {name: installed.get(_canonical(name), "missing").partition("+")[0] for name in wanted}
    return [f"{name} is {found[name]}, the lock says {wanted[name]}" for name in wanted if found[name] != wanted[name]]


def _canonical(name: str) -> str:
    # https://packaging.python.org/en/latest/specifications/name-normalization/
    return re.sub(r"[-_.]+", "-", name).lower()


def _make_room(place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place.parent).free
    except OSError as error:
        raise _cannot(f"{place.parent} cannot be made ({error.strerror})", f"set {NAMED} or XDG_CACHE_HOME") from error
    if free < NEEDED:
        raise _cannot(
            f"it needs {NEEDED / 1e9:.0f} GB and {place.parent} has {free / 1e9:.1f} GB free",
            "free some space, or set XDG_CACHE_HOME to a folder on another disk",
        )


def _make(place: Path, progress: Progress | None) -> None:
    """Whole or not at all: what a killed process left is cleared first, and the marker comes last."""
    try:
        # --clear, and no pip inside: ours installs from outside, so that Pythons without ensurepip will do.
        _do([sys.executable, "-m", "venv", "--clear", "--without-pip", place], place, None)
        install: list[str | Path] = [
            "install",
            "--no-deps",
            "--no-compile",
            "--disable-pip-version-check",
            "--requirement",
            PINS,
        ]
        _do([sys.executable, "-m", "pip", "--python", interpreter(place), *install], place, progress)
        _refuse_what_does_not_import(place)
        (place / "ready").write_text(lock_digest())
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _do(command: list[str | Path], place: Path, progress: Progress | None) -> None:
    """Run it to its end; its scratch files stay on the disk that is known to have room."""
    scratch, log = place.with_suffix(".scratch"), place.with_suffix(".log")
    scratch.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"} | {"TMPDIR": str(scratch)}
    try:
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
            try:
                going = True
                while going:
                    going = not _ended(process)
                    if progress:
                        progress("reference environment", size(place) + size(scratch), None)
            finally:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if process.returncode:
        raise _refusal(log.read_text(errors="replace"), log)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return False
    return True


def _refusal(output: str, log: Path) -> StageError:
    lines = output.strip().splitlines()
    told = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no word from pip")
    if "No space left" in output:
        hint = "free some space, or set XDG_CACHE_HOME to a folder on another disk"
    elif "different python" in output.lower():
        hint = f"this is Python {sys.version_info.major}.{sys.version_info.minor}; run modelkit with Python 3.11"
    else:
        hint = "it comes from a Python package index; pip's own settings say which (PIP_INDEX_URL)"
    return _cannot(told.removeprefix("ERROR: "), f"{hint}; the whole log is {log}", output)


def _refuse_what_does_not_import(place: Path) -> None:
    code = "".join(f"import {name}\n" for name in IMPORTS)
    done = subprocess.run([interpreter(place), "-I", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise _cannot(
            (done.stderr.strip().splitlines() or ["an import failed"])[-1],
            "a torch for CUDA? One for the CPU is at PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu",
            done.stderr,
        )


def _cannot(why: str, hint: str, log: str = "") -> StageError:
    return StageError(f"the reference environment cannot be made: {why}", hint=hint, log=log)
