"""Values that know where they stand in a file, and everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from modelkit.errors import ManifestError
from modelkit.vocabulary import Place

Trail: TypeAlias = tuple[str | int, ...]
"""Keys and list positions from the top of the file down to a node."""


@dataclass(slots=True)
class Node:
    """One value. Its place is that of its key, of itself in a list, and of the first key for the whole file."""

    value: str | int | float | bool | list[Node] | dict[str, Node] | None
    line: int = 1
    column: int = 1
    text: str = ""
    """A scalar as its author wrote it, without quotes."""
    quoted: bool = False

    def only(self, keys: Collection[str]) -> Node:
        """Some of a mapping's keys in the same place; anything but a mapping stays what it is."""
        if not isinstance(self.value, dict):
            return self
        return Node({key: node for key, node in self.value.items() if key in keys}, self.line, self.column)

    def items(self) -> dict[str, Node]:
        """The keys of a mapping; none for anything else, whose mistake is reported elsewhere."""
        return self.value if isinstance(self.value, dict) else {}

    def data(self) -> Any:
        """The value without its marks."""
        if isinstance(self.value, dict):
            return {key: node.data() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        return self.value


@dataclass(slots=True)
class Mistakes:
    """Everything that is wrong in one file; the first word about a key wins, what follows from it would be noise."""

    path: Path
    found: dict[tuple[int, int, Trail], str] = field(default_factory=dict)

    def add(self, node: Node, trail: Trail, problem: str) -> None:
        self.found.setdefault((node.line, node.column, trail), problem)

    def raise_any(self) -> None:
        """Raises `ManifestError` with one line per mistake, in the order of the file; returns if there are none."""
        if not self.found:
            return
        lines = []
        for (line, column, trail), problem in sorted(self.found.items(), key=lambda item: item[0][:2]):
            key = ".".join(one_line(str(step)) for step in trail)
            told = one_line(f"{key}: {problem}" if key else problem, 500)
            lines.append(f"{Place(self.path, line, column)}: {told}")
        raise ManifestError(f"{len(lines)} mistakes", where=self.path, mistakes=tuple(lines))

    def fatal(self, line: int, column: int, problem: str) -> NoReturn:
        """For what makes reading on pointless."""
        self.add(Node(None, line, column), (), problem)
        self.raise_any()
        raise AssertionError


def one_line(text: str, longest: int = 80) -> str:
    """`text` with everything that is not printable escaped, cut to what fits into a sentence."""
    text = text if len(text) <= longest else text[: longest - 3] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def places(root: Node, path: Path) -> dict[str, Place]:
    """Dotted key -> where it stands, for every key and list item below `root`."""
    found: dict[str, Place] = {}
    todo: list[tuple[str, Node]] = [("", root)]
    while todo:
        prefix, node = todo.pop()
        if isinstance(node.value, dict | list):
            items = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
            for key, child in items:
                found[f"{prefix}{key}"] = Place(path, child.line, child.column)
                todo.append((f"{prefix}{key}.", child))
    return found


def reads_as(value: float | bool | str | None) -> str:
    """What YAML made of a scalar without quotes, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "text" if isinstance(value, str) else "a number"
