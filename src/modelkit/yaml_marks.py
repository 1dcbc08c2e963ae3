"""One YAML file -> nodes that know where they stand. Refuses what a manifest has no use for.

Works on the parser's events and not on PyYAML's composed nodes: only events still tell an anchor, an explicit tag
and quotes from the rest, and a loop over them cannot run out of stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import yaml

from modelkit.errors import ManifestError
from modelkit.marks import Mistakes, Node, Trail, one_line, reads_as

LARGEST_FILE = 2**20
DEEPEST = 32
LONGEST_NUMBER = 64
"""Characters; Python refuses to print integers of many thousand digits, and nobody writes one."""


def read(path: Path, mistakes: Mistakes) -> Node:
    """The top mapping of the file at `path`.

    Small mistakes (duplicate keys, anchors, tags) go to `mistakes` and reading goes on; raises `ManifestError` for a
    file that cannot be opened, decoded or parsed, that is empty, too large or too deep, or holds no mapping.
    """
    text = _decode(_bytes(path), mistakes)
    loader = _Loader(text)
    try:
        root = _Builder(loader, mistakes).build()
    except yaml.MarkedYAMLError as error:
        line, column = _from_one(error.problem_mark or error.context_mark)
        mistakes.fatal(line, column, _syntax(error, text, line, column))
    except yaml.YAMLError as error:
        mistakes.fatal(1, 1, f"not valid YAML: {one_line(str(error))}")
    finally:
        loader.dispose()
    if root is None or (root.value is None and not root.text):
        mistakes.fatal(1, 1, "the file is empty, expected a manifest")
    if not isinstance(root.value, dict):
        mistakes.fatal(root.line, root.column, "expected a mapping of keys at the top of the file")
    return root


def _bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ManifestError("is a folder, expected a file", where=path)
        if path.exists() and not path.is_file():
            raise ManifestError("is not a regular file", where=path)
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ManifestError("no such file", where=path) from None
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}", where=path) from error
    if len(content) > LARGEST_FILE:
        raise ManifestError("is larger than 1 MiB, which no manifest needs", where=path)
    return content


# What YAML calls printable, less the C1 controls; what is left can hide text from a reviewer's terminal.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def _decode(content: bytes, mistakes: Mistakes) -> str:
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        mistakes.fatal(*_place_after(before), f"not UTF-8: {error.reason} 0x{content[error.start]:02x}")
    if control := _CONTROL.search(text):
        mistakes.fatal(*_place_after(text[: control.start()]), _has_control(control))
    return text


def _from_one(mark: Any) -> tuple[int, int]:
    """PyYAML counts lines and columns from 0 and may have no mark; people and editors count from 1."""
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _place_after(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _has_control(match: re.Match[str]) -> str:
    return f"control character U+{ord(match.group()):04X}, remove it"


def _syntax(error: yaml.MarkedYAMLError, text: str, line: int, column: int) -> str:
    sentence = f"not valid YAML: {error.problem or 'cannot be parsed'}"
    if error.context:
        sentence += f" {error.context}"
        if (start := _from_one(error.context_mark)[0]) != line:
            sentence += f" that starts on line {start}"
    at = text.split("\n")[line - 1 : line]
    tab = bool(at) and at[0][column - 1 :].startswith("\t")
    return sentence + ("; indent with spaces, not tabs" if tab else "")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The C parser, about fifteen times as fast; PyYAML without it differs in nothing but speed."""


# YAML 1.1 wants a dot in a float; editors follow YAML 1.2, where 1e-3 and an unlucky 7-digit commit are numbers too.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)

_RESOLVER = _Loader("")

# Dates are left out on purpose: they stay text, as in YAML 1.2, and whoever wants a day parses it.
_SCALARS = {
    "tag:yaml.org,2002:null": yaml.SafeLoader.construct_yaml_null,
    "tag:yaml.org,2002:bool": yaml.SafeLoader.construct_yaml_bool,
    "tag:yaml.org,2002:int": yaml.SafeLoader.construct_yaml_int,
    "tag:yaml.org,2002:float": yaml.SafeLoader.construct_yaml_float,
}


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    trail: Trail
    node: Node
    key: Node | None = None


class _Builder:
    """Events -> nodes."""

    def __init__(self, loader: Any, mistakes: Mistakes) -> None:
        self.loader, self.mistakes = loader, mistakes
        self.root: Node | None = None
        self.open: list[_Open] = []

    def build(self) -> Node | None:
        for event in iter(self.loader.get_event, None):
            if isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.open.pop()
            elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
                self._fatal(event, "a second document starts here, a manifest is one document")
        return self.root

    def _node(self, event: yaml.NodeEvent) -> None:
        parent = self.open[-1] if self.open else None
        if parent and isinstance(parent.node.value, dict) and parent.key is None:
            parent.key = self._key(event, parent)
            return
        node = Node(None, *_from_one(event.start_mark))
        trail = self._attach(node, parent) if parent else ()
        self.root = self.root or node
        self._refuse(event, node, trail)
        if isinstance(event, yaml.ScalarEvent):
            node.text, node.quoted = event.value, not event.implicit[0]
            node.value = _scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            node.value = {} if isinstance(event, yaml.MappingStartEvent) else []
            if len(self.open) >= DEEPEST:
                self._fatal(event, f"nested more than {DEEPEST} levels deep")
            self.open.append(_Open(trail, node))

    def _attach(self, node: Node, parent: _Open) -> Trail:
        """Puts `node` into its parent and gives it its key's place; the second of two equal keys stays outside."""
        if isinstance(parent.node.value, list):
            parent.node.value.append(node)
            return (*parent.trail, len(parent.node.value) - 1)
        assert isinstance(parent.node.value, dict)
        assert parent.key is not None
        key, parent.key = parent.key, None
        node.line, node.column = key.line, key.column
        trail = (*parent.trail, key.text)
        if first := parent.node.value.get(key.text):
            self.mistakes.add(node, trail, f"duplicate key, the first one is on line {first.line}")
        else:
            parent.node.value[key.text] = node
        return trail

    def _key(self, event: yaml.NodeEvent, parent: _Open) -> Node:
        if isinstance(event, yaml.AliasEvent):
            self._fatal(event, "an alias as a key; a manifest is flat, write the key out")
        if not isinstance(event, yaml.ScalarEvent):
            self._fatal(event, "a key must be text, not a list or a mapping")
        key = Node(event.value, *_from_one(event.start_mark), event.value)
        trail = (*parent.trail, event.value)
        self._refuse(event, key, trail)
        if not isinstance(value := _scalar(event), str):
            self.mistakes.add(key, trail, f"a key must be text, and YAML reads this as {reads_as(value)}; quote it")
        return key

    def _refuse(self, event: yaml.NodeEvent, node: Node, trail: Trail) -> None:
        """What YAML offers and a manifest does not: whoever reads a key must see its value right there."""
        if isinstance(event, yaml.AliasEvent):
            self.mistakes.add(node, trail, f"alias '*{event.anchor}'; a manifest is flat, write the value out")
        elif event.anchor is not None:
            self.mistakes.add(node, trail, f"anchor '&{event.anchor}'; a manifest is flat and has no anchors")
        elif tag := getattr(event, "tag", None):
            self.mistakes.add(node, trail, f"explicit tag '{one_line(tag)}'; a manifest has no tags")
        elif isinstance(event, yaml.ScalarEvent) and (control := _CONTROL.search(event.value)):
            self.mistakes.add(node, trail, _has_control(control))

    def _fatal(self, event: yaml.Event, problem: str) -> NoReturn:
        self.mistakes.fatal(*_from_one(event.start_mark), problem)


Scalar: TypeAlias = str | int | float | bool | None


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    plain = event.implicit[0] and len(event.value) <= LONGEST_NUMBER
    return _plain(event.value) if plain else str(event.value)


@lru_cache(maxsize=1024)
def _plain(text: str) -> Scalar:
    """What text without quotes means; remembered, because the same keys come back in every manifest."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag not in _SCALARS:
        return text
    try:
        value: Scalar = _SCALARS[tag](_RESOLVER, yaml.ScalarNode(tag, text))
    except ValueError:  # such as 0b_, which the pattern lets through
        return text
    return value
