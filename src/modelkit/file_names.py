"""Names and addresses as strangers give them: which are wanted, which are dangerous, what may be printed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from modelkit.errors import SourceError
from modelkit.vocabulary import Wanted

WINDOWS_DRIVE = re.compile(r"[A-Za-z]:")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")
LISTED_AT_MOST = 5


def matches(name: str, pattern: str) -> bool:
    """Whether `name` matches: `*`, `?` and `[...]` stay inside one folder, so both have the same depth."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def is_pattern(text: str) -> bool:
    """Whether `text` can match a name other than itself."""
    return any(character in text for character in "*?[")


def is_safe(name: str) -> bool:
    """Whether `name`, joined to a folder, names something below that folder on every platform."""
    if "\\" in name or WINDOWS_DRIVE.match(name) or CONTROL_CHARACTERS.search(name):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def wants(patterns: Iterable[str], name: str) -> bool:
    """Whether one of `patterns` matches `name`."""
    return any(matches(name, pattern) for pattern in patterns)


def refuse_unsafe(names: Iterable[str]) -> None:
    """Raise `SourceError` if a name could leave the folder it is written to."""
    if unsafe := sorted(name for name in names if not is_safe(name)):
        raise SourceError(
            f"holds a file name that could leave its folder: {unsafe[0]!r}",
            hint="a name must be relative, with '/' between its parts and without '..'; do not use this source",
        )


def select(wanted: Wanted, available: Iterable[str]) -> tuple[str, ...]:
    """The wanted ones of `available`, in its order.

    Raises `SourceError` if a name that a lock knows is missing, if no pattern matches, or if a chosen name is unsafe.
    """
    refuse_unsafe(wanted.names)
    available = tuple(dict.fromkeys(available))
    if wanted.names:
        if missing := sorted(set(wanted.names) - set(available)):
            raise SourceError(f"has no {listed(missing)}", hint="the lock names files that this place does not have")
        return tuple(name for name in available if name in wanted.names)
    chosen = tuple(name for name in available if wants(wanted.patterns, name))
    if not chosen:
        raise SourceError(
            f"has no file that matches {listed(wanted.patterns)}",
            hint="name the files in `source.files`; '*' stays inside one folder",
        )
    refuse_unsafe(chosen)
    return chosen


def root_of(wanted: Wanted, available: Iterable[str]) -> str:
    """The folder inside an archive that holds the model: '' for the top, else with a '/' at its end.

    It is the shallowest folder that holds every wanted name, or, when only patterns are known, a `config.json`.
    Raises `SourceError` if two folders of the same depth do.
    """
    available = set(available)
    needed = wanted.names or ("config.json",)
    roots = {name.removesuffix(end) for end in needed for name in available if f"/{name}".endswith(f"/{end}")}
    # The fewest missing first, so that what is reported as missing later is missing from the likeliest folder.
    ranked = sorted((sum(root + end not in available for end in needed), root.count("/"), root) for root in roots)
    tied = [root for missing, depth, root in ranked if (missing, depth) == (0, ranked[0][1])]
    if len(tied) > 1:
        raise SourceError(
            f"holds the model in more than one folder: {listed(tied)}",
            hint="a package can say which one in `folder`",
        )
    return ranked[0][2] if ranked else ""


def listed(names: Iterable[str]) -> str:
    """`'a', 'b' and 3 more`."""
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:LISTED_AT_MOST])
    return f"{shown} and {len(names) - LISTED_AT_MOST} more" if len(names) > LISTED_AT_MOST else shown


def without_secrets(text: str) -> str:
    """`text` with user, password and query (where signed addresses carry their token) cut from every URL in it."""
    text = re.sub(r"(?<=://)[^/\s'\"]*@", "", text)
    return re.sub(r"(://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text)
