"""Key -> folder of files: made once, moved into place whole, verified before use, shared by threads and processes.

root/objects/<key[:2]>/<key>/files/...   what the stage wrote
root/objects/<key[:2]>/<key>/entry.json  what it is, sealed
root/records/<key[:2]>/<key>.json        small results, sealed
root/last/<label>.json                   the stage a label used last, sealed
root/building/<token>[.lock]             private folders; whoever holds the lock is alive
root/locks/<key>.lock                    one lock per key
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from errno import EACCES, EDQUOT, EEXIST, EFBIG, EISDIR, ENOSPC, ENOTDIR, EPERM, EROFS
from pathlib import Path
from typing import Any

from modelkit.digests import canonical, digest_file, digest_folder, digest_of, key_of, members, seal, unseal
from modelkit.durable import folder, locked, private_folder, replace_file, sync, sync_tree
from modelkit.errors import ArtifactError, StageError
from modelkit.vocabulary import Artifact, FileDigest, Stage

FORMAT = 1
"""Layout of an entry; entries of another format are made anew."""

_FULL = {ENOSPC, EDQUOT, EFBIG}
_UNUSABLE = {EACCES, EPERM, EROFS, ENOTDIR, EEXIST, EISDIR}
_DAMAGE = (ArtifactError, FileNotFoundError, NotADirectoryError)
"""What reading an entry raises when the entry is to blame; a failing disk is no reason to drop it."""

_Fingerprint = tuple[tuple[str, int, int, int, int], ...]
"""Name, mtime, ctime, size and inode of every file of an entry."""


class Store:
    """A folder that keeps what stages make. Nothing is created before the first write.

    `root` defaults to the environment variable MODELKIT_STORE, else to the user's cache folder. Every method raises
    StageError when the folder cannot be used or the disk is full, and ValueError for a key that is no sha256.
    """

    def __init__(self, root: Path | None = None) -> None:
        if root is None and (named := os.environ.get("MODELKIT_STORE")):
            root = Path(named).expanduser()
        if root is None:
            from platformdirs import user_cache_path  # noqa: PLC0415  only when nobody named a folder

            root = user_cache_path("modelkit")
        self.root = root.absolute()
        self.dropped: list[str] = []
        """One line per damaged entry or record that was found and removed."""
        self._verified: dict[str, tuple[_Fingerprint, Artifact]] = {}

    def make(
        self,
        stage: Stage,
        write: Callable[[Path], None],
        *,
        force: bool = False,
        note: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """The files of `stage`: found, or made by `write(empty folder)`; `note` is kept with what is made.

        Any number of threads and processes may ask at once; one of them makes it, the others wait and find it.
        `force` makes it again and compares. The artifact's chain is `stage` alone.

        Raises what `write` raises (nothing is left behind then), StageError when it left no file or something that is
        no plain file, or when a forced rebuild gave other bytes (the old ones stay), and ValueError when `stage.key`
        is not the key of `stage.material`.
        """
        if stage.key != key_of(stage.material):
            raise ValueError(f"stage {stage.name}: its key is not the key of its material")
        canonical(dict(note or {}))  # refuse a note that cannot be kept now, not after an hour of work
        if not force and (found := self.find(stage.key)):
            return replace(found, reused=True)
        with self._told_plainly(stage.name), self._lock(stage.key):
            # Whoever held the lock before may have made it meanwhile.
            found = self._sound(stage.key, verify=True)
            if found and not force:
                return replace(found, reused=True)
            # Told inside as well, so that the free space is that of the moment and not after tidying up.
            with private_folder(self.root) as private, self._told_plainly(stage.name):
                made = _fill(private, stage, write, dict(note or {}))
                if found:
                    _insist_on_same_bytes(found, made)
                    return found
                return self._publish(private, stage.key, made)

    @contextmanager
    def workspace(self, purpose: str) -> Iterator[Path]:
        """An empty folder on the store's disk that goes away afterwards; `purpose` names it when the disk is full."""
        # Told inside as well, for the same reason as in `make`.
        with self._told_plainly(purpose), private_folder(self.root) as private, self._told_plainly(purpose):
            yield private

    def find(self, key: str, *, verify: bool = True) -> Artifact | None:
        """The entry of `key`, or None. A damaged one is dropped, told in `dropped`, and None.

        `verify` compares every size and sha256; what this object verified once is not read again while no file's
        time, size or inode has changed.
        """
        with self._told_plainly("modelkit"):
            try:
                return self._read(key, verify=verify)
            except _DAMAGE:
                # Perhaps another process is dropping or replacing it right now: only under the lock is that certain.
                with self._lock(key):
                    return self._sound(key, verify=verify)

    def note(self, key: str) -> dict[str, Any] | None:
        """The note that was kept with the entry of `key`, or None; its files are not looked at."""
        with self._told_plainly("modelkit"):
            try:
                return dict(_entry(self._object(key))["note"])
            except _DAMAGE:
                return None

    def entries(self) -> Iterator[Artifact]:
        """Every entry, by key, its files unverified; entries that cannot be read are left out."""
        for place in sorted(self.root.glob("objects/??/*")):
            try:
                yield _described(place)
            except _DAMAGE:
                continue

    def put_record(self, key: str, value: Mapping[str, Any]) -> None:
        """Keeps a small JSON value under `key`, in place of an earlier one. Raises TypeError or ValueError as `key_of`
        does for what is no JSON (NaN included)."""
        content = seal({"key": key, "value": dict(value)})
        with self._told_plainly("modelkit"), self._lock(key, "record-"):
            replace_file(self._record(key), content, self.root)

    def get_record(self, key: str) -> dict[str, Any] | None:
        """What `put_record` kept, or None. A damaged record is dropped, told in `dropped`, and None."""
        with self._told_plainly("modelkit"):
            place = self._record(key)
            try:
                return _recorded(place, key)
            except ArtifactError:
                pass
            with self._lock(key, "record-"):
                try:
                    return _recorded(place, key)
                except ArtifactError as damage:
                    place.unlink()
                    self.dropped.append(f"dropped record {key[:12]}…: {damage}")
                    return None

    def remember(self, label: str, stage: Stage) -> None:
        """Notes that `label`, such as `minilm-l6/int8/quantized`, used `stage` last. Raises ValueError for a label that
        is no relative path."""
        if self.last(label) == stage:
            return  # so that a store one may only read serves whoever finds everything in it
        body = {"label": label, "name": stage.name, "key": stage.key, "material": dict(stage.material)}
        with self._told_plainly("modelkit"):
            replace_file(self._label(label), seal(body), self.root)

    def last(self, label: str) -> Stage | None:
        """The stage `label` used last; None when there is none or the note is damaged. Raises as `remember` does."""
        with self._told_plainly("modelkit"):
            try:
                body = unseal(self._label(label).read_bytes(), label)
            except _DAMAGE:
                return None
        return Stage(body["name"], body["key"], body["material"]) if body.get("label") == label else None

    def _read(self, key: str, *, verify: bool) -> Artifact | None:
        """Raises one of _DAMAGE when the entry is not what was put there, or vanishes meanwhile."""
        place = self._object(key)
        if not os.path.lexists(place):
            return None
        if not verify:
            return _described(place)
        found = members(place)
        fingerprint = _fingerprint(found)
        known = self._verified.get(key)
        if known is None or known[0] != fingerprint:
            known = fingerprint, _described(place)
            _verify(known[1], found)
            self._verified[key] = known
        return known[1]

    def _sound(self, key: str, *, verify: bool) -> Artifact | None:
        """As `_read`, but drops a damaged entry. The caller holds the lock of `key`."""
        try:
            return self._read(key, verify=verify)
        except _DAMAGE as damage:
            # Renamed aside first: a reader sees the entry or none, never a half.
            with private_folder(self.root) as aside:
                self._object(key).rename(aside / "dropped")
            self.dropped.append(f"dropped {key[:12]}…: {damage if isinstance(damage, ArtifactError) else 'incomplete'}")
            return None

    def _publish(self, private: Path, key: str, made: Artifact) -> Artifact:
        place = self._object(key)
        folder(place.parent, self.root)
        private.rename(place)
        sync(place.parent)
        artifact = replace(made, folder=place / "files")
        self._verified[key] = _fingerprint(members(place)), artifact
        return artifact

    @contextmanager
    def _lock(self, key: str, prefix: str = "") -> Iterator[None]:
        with locked(folder(self.root / "locks", self.root) / f"{prefix}{_checked(key)}.lock"):
            yield

    @contextmanager
    def _told_plainly(self, who: str) -> Iterator[None]:
        """Turns a full disk and an unusable store into StageError; other errors are not the store's to explain."""
        try:
            yield
        except OSError as error:
            # numpy tells a short write in words of its own, without a number.
            if error.errno in _FULL or (error.errno is None and "requested and" in str(error)):
                message = f"no space left while {who} was writing to {self.root} ({self._free()} free)"
                if error.errno not in (None, ENOSPC):  # a quota or a limit: the free space alone would puzzle
                    message += f": {error.strerror}"
                hint = "free some space or point MODELKIT_STORE at a larger disk"
                raise StageError(message, hint=hint) from error
            if error.errno in _UNUSABLE and Path(str(error.filename)).is_relative_to(self.root):
                message = f"cannot use the store {self.root}: {error.strerror} ({error.filename})"
                raise StageError(message, hint="point MODELKIT_STORE at a folder you can write to") from error
            raise

    def _free(self) -> str:
        there = next(place for place in (self.root, *self.root.parents) if os.path.lexists(place))
        free = shutil.disk_usage(there).free
        return f"{free / 1e9:.1f} GB" if free >= 1e9 else f"{free / 1e6:.1f} MB"

    def _object(self, key: str) -> Path:
        return self.root / "objects" / _checked(key)[:2] / key

    def _record(self, key: str) -> Path:
        return self.root / "records" / _checked(key)[:2] / f"{key}.json"

    def _label(self, label: str) -> Path:
        if not all(re.fullmatch(r"[\w.+-]+", part) and part.strip(".") for part in label.split("/")):
            raise ValueError(f"{label!r} is no label; expected names joined by '/'")
        return self.root / "last" / f"{label}.json"


def _checked(key: str) -> str:
    # It becomes a path.
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise ValueError(f"{key!r} is no key; expected a sha256 in lower-case hex")
    return key


def _fill(private: Path, stage: Stage, write: Callable[[Path], None], note: dict[str, Any]) -> Artifact:
    """Lets `write` fill the private folder and describes it; all of it is on the disk when this returns."""
    inner = private / "files"
    inner.mkdir()
    write(inner)
    try:
        files = digest_folder(inner)
    except ArtifactError as error:
        raise StageError(error.message) from error
    if not files:
        raise StageError("wrote no files")
    # No clock, no host, no user: the same stage gives the same entry anywhere.
    entry = {
        "format": FORMAT,
        "stage": stage.name,
        "key": stage.key,
        "material": dict(stage.material),
        "files": {name: asdict(file) for name, file in files.items()},
        "digest": digest_of(files),
        "note": note,
    }
    (private / "entry.json").write_bytes(seal(entry))
    sync_tree(private)
    return Artifact(inner, digest_of(files), files, (stage,))


def _entry(place: Path) -> dict[str, Any]:
    entry = unseal((place / "entry.json").read_bytes(), "entry.json")
    if (entry.get("format"), entry.get("key")) != (FORMAT, place.name):
        raise ArtifactError("entry.json is of another format or key")
    return entry


def _described(place: Path) -> Artifact:
    entry = _entry(place)
    files = {name: FileDigest(**file) for name, file in entry["files"].items()}
    stage = Stage(entry["stage"], entry["key"], entry["material"])
    return Artifact(place / "files", entry["digest"], files, (stage,))


def _verify(artifact: Artifact, found: Mapping[str, os.stat_result]) -> None:
    wanted = {f"files/{name}": file for name, file in artifact.files.items()}
    if odd := sorted(wanted.keys() ^ (found.keys() - {"entry.json"})):
        raise ArtifactError(f"{odd[0]} {'is missing' if odd[0] in wanted else 'was added'}")
    for name, file in wanted.items():
        # The size first: it costs nothing and tells most damage.
        if found[name].st_size != file.size or digest_file(artifact.folder.parent / name) != file:
            raise ArtifactError(f"{name} has other bytes than it was stored with")


def _fingerprint(found: Mapping[str, os.stat_result]) -> _Fingerprint:
    # The time of the last change of the inode as well: unlike st_mtime, nobody can set it back.
    return tuple((name, it.st_mtime_ns, it.st_ctime_ns, it.st_size, it.st_ino) for name, it in found.items())


def _insist_on_same_bytes(old: Artifact, new: Artifact) -> None:
    for name in sorted(old.files.keys() | new.files.keys()):
        was, now = old.files.get(name), new.files.get(name)
        if was != now:
            before, after = (f"{file.sha256[:12]}…" if file else "missing" for file in (was, now))
            raise StageError(f"not reproducible: {name} was {before}, now {after}")


def _recorded(place: Path, key: str) -> dict[str, Any] | None:
    try:
        body = unseal(place.read_bytes(), "it")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if body.get("key") != key:
        raise ArtifactError("it belongs to another key")
    return dict(body["value"])
