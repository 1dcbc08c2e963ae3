"""Names for content: keys of JSON values, digests of files and folders, sealed JSON, and what differs between two."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from modelkit.errors import ArtifactError
from modelkit.vocabulary import FileDigest

_ABSENT = object()
"""Stands for a key that one side of a comparison lacks; `None` would be a value."""

_SHOWN = 60
"""Characters of a value that one line of `difference` shows before it shortens."""


def key_of(material: Mapping[str, Any]) -> str:
    """Sha256, in lower-case hex, of `material` as canonical JSON.

    The order of keys does not matter; types do: `True`, `1` and `1.0` give three keys.
    Raises TypeError, naming the place, for anything that is no JSON built-in (a tuple and a numpy scalar included)
    and ValueError for NaN and infinity.
    """
    return hashlib.sha256(canonical(dict(material)).encode("ascii")).hexdigest()


def canonical(value: object) -> str:
    """`value` as the one JSON text it has: sorted keys, no spaces, ASCII. Raises as `key_of` does."""
    _insist_on_json(value, "")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _insist_on_json(value: object, path: str) -> None:
    # Exact types, not isinstance: json would write a numpy float64, an IntEnum or a tuple without a word, and what is
    # read back later would be something else than what was stored.
    if type(value) is dict:
        for name, inner in value.items():
            if type(name) is not str:
                raise TypeError(f"{path or 'top level'}: the key {name!r} is no str, so it is no JSON")
            _insist_on_json(inner, _below(path, name))
    elif type(value) is list:
        for position, inner in enumerate(value):
            _insist_on_json(inner, f"{path}[{position}]")
    elif value is not None and type(value) not in (str, int, float, bool):
        raise TypeError(f"{path or 'top level'}: {value!r} is a {type(value).__name__}, which is no JSON built-in")
    elif type(value) is float and not math.isfinite(value):
        raise ValueError(f"{path or 'top level'}: {value!r} has no JSON form")


def seal(body: Mapping[str, Any]) -> bytes:
    """`body` as readable JSON that carries its own digest, so that `unseal` notices any edit. Raises as `key_of`."""
    sealed = {**body, "seal": key_of(body)}
    return json.dumps(sealed, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def unseal(content: bytes, name: str) -> dict[str, Any]:
    """What `seal` was given. Raises ArtifactError, calling it `name`, when `content` is not what was sealed."""
    try:
        body: dict[str, Any] = json.loads(content)
        if body.pop("seal") == key_of(body):
            return body
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # no JSON, or some other JSON
        raise ArtifactError(f"{name} is damaged") from error
    raise ArtifactError(f"{name} was edited")


def digest_file(path: Path) -> FileDigest:
    """Digest of one file, read in pieces. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        # What was hashed, not what a stat would say now: the two figures always describe the same bytes.
        return FileDigest(sha256, file.tell())


def digest_folder(folder: Path) -> dict[str, FileDigest]:
    """Digest of every file under `folder`, by relative POSIX name, sorted. Empty folders do not count.

    Raises ArtifactError for a symlink or a special file, OSError when something cannot be read.
    """
    return {name: digest_file(folder / name) for name in members(folder)}


def digest_of(files: Mapping[str, FileDigest]) -> str:
    """One sha256, in lower-case hex, over the names and the contents of all `files`, in any order."""
    return key_of({name: {"sha256": file.sha256, "size": file.size} for name, file in files.items()})


def members(folder: Path) -> dict[str, os.stat_result]:
    """Every file under `folder`, by relative POSIX name, sorted. Raises as `digest_folder` does."""
    found: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False):
                    found[name] = entry.stat(follow_symlinks=False)
                else:
                    # Its content lies outside the folder, or is none: no digest could promise anything about it.
                    raise ArtifactError(f"{name} is a symlink or a special file; only plain files can be kept")
    return dict(sorted(found.items()))


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line per difference, such as `options.block: 16 -> 32`, in the order of the dotted paths.

    Empty exactly when `key_of` gives both the same key. Raises as `key_of` does.
    """
    return list(_differences("", dict(old), dict(new)))


def _differences(path: str, old: object, new: object) -> Iterator[str]:
    if type(old) is dict and type(new) is dict:
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(_below(path, name), old.get(name, _ABSENT), new.get(name, _ABSENT))
    elif type(old) is list and type(new) is list:
        for position, pair in enumerate(zip_longest(old, new, fillvalue=_ABSENT)):
            yield from _differences(f"{path}[{position}]", *pair)
    elif old is _ABSENT:
        yield f"{path}: added {_short(new)}"
    elif new is _ABSENT:
        yield f"{path}: removed {_short(old)}"
    elif canonical(old) != canonical(new):
        before, after = _short(old), _short(new)
        if before == after:  # "16" against 16, or two long texts that differ far behind
            before, after = canonical(old), canonical(new)
        yield f"{path}: {before} -> {after}"


def _below(path: str, name: str) -> str:
    step = name if name and name.isprintable() else json.dumps(name)
    return f"{path}.{step}" if path else step


def _short(value: object) -> str:
    bare = type(value) is str and value.isprintable() and value == value.strip() != ""
    text = str(value) if bare else canonical(value)
    if len(text) == hashlib.sha256().digest_size * 2 and set(text) <= set("0123456789abcdef"):
        return f"{text[:12]}…"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
