"""Files that are there whole or not at all: locks, private folders, and writes that outlive a power cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from modelkit.errors import StageError


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds the lock on `file` against every other thread and process; the kernel frees it when its holder dies.

    Yields True, or without `wait` False at once when somebody else holds it. The folder of `file` must exist.
    Raises StageError on a file system without kernel locks, OSError when the lock file cannot be made.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415  costs 50 ms

    # Marker files, its substitute for kernel locks, outlive a killed holder, or end under a live one.
    lock = FileLock(file, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
        held = True
    except Timeout:
        held = False
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        raise StageError(
            f"the file system of {file.parent} has no file locks", hint="point MODELKIT_STORE elsewhere"
        ) from error
    try:
        yield held
    finally:
        lock.release()


@contextmanager
def private_folder(root: Path) -> Iterator[Path]:
    """An empty folder of our own under `root/building`, removed afterwards unless it was renamed away.

    What killed processes left there is removed first; what belongs to a live one, never.
    """
    building, locks = folder(root / "building", root), folder(root / "locks", root)
    private = building / uuid4().hex
    with ExitStack() as undo:
        # A folder and its lock appear together under one more lock, so that a sweep never meets a folder whose maker
        # is only about to lock it. A process number in the name would not do: numbers are used again.
        with locked(locks / "sweep.lock"):
            _sweep(building)
            alive = private.with_suffix(".lock")
            undo.enter_context(locked(alive))
            undo.callback(alive.unlink, missing_ok=True)
            undo.callback(shutil.rmtree, private, ignore_errors=True)
            private.mkdir()
        yield private


def _sweep(building: Path) -> None:
    for name in sorted({place.name.removesuffix(".lock") for place in building.iterdir()}):
        alive = building / f"{name}.lock"
        with locked(alive, wait=False) as dead:
            if dead:
                shutil.rmtree(building / name, ignore_errors=True)
                alive.unlink(missing_ok=True)


def replace_file(file: Path, content: bytes, root: Path) -> None:
    """Puts `content` at `file`, somewhere under `root`; a reader finds the old content or the new, never a part."""
    with private_folder(root) as private:
        aside = private / "content"
        aside.write_bytes(content)
        sync(aside)
        folder(file.parent, root)
        aside.replace(file)
        sync(file.parent)


def put(file: Path, content: bytes) -> None:
    """Puts `content` at `file`, whole or not at all, making its folder. Raises `StageError` when that fails."""
    aside = file.with_name(f".{file.name}.{uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        sync(aside)
        aside.replace(file)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise StageError(
            f"cannot be written ({error.strerror})", where=file, hint="free some space or make the folder writable"
        ) from error


def folder(place: Path, root: Path) -> Path:
    """`place`, made when missing; each new folder below `root` is on the disk when this returns."""
    if not place.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        above = place
        while above != root:
            above = above.parent
            sync(above)
    return place


def sync_tree(place: Path) -> None:
    """Every file and folder below `place`, and `place` itself, is on the disk when this returns."""
    for inner, _, names in os.walk(place):
        for name in names:
            sync(Path(inner, name))
        sync(Path(inner))


def sync(place: Path) -> None:
    """The file or folder is on the disk when this returns."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
