"""Nodes against a typed dataclass, strictly; what pydantic objects to is told in plain words, at its place.

Everything goes through pydantic's JSON mode: there, strict still lets a list be a tuple and a mapping a dataclass,
which are the two things YAML has no word for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import groupby
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails

from modelkit.errors import ManifestError
from modelkit.kinds import did_you_mean
from modelkit.marks import Mistakes, Node, Trail, one_line, reads_as

T = TypeVar("T")

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

_WORDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "none_required": "nothing",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "dataclass_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "at least one entry",
}


@cache
def adapter(options: Any) -> TypeAdapter[Any]:
    """The strict adapter of a standard-library dataclass, made once: making one takes as long as ten manifests."""
    # pydantic reads a dataclass's configuration from the class and takes none beside it; nested ones inherit it.
    return TypeAdapter(with_config(_STRICT)(options))


def validate(options: type[T], node: Node, trail: Trail, mistakes: Mistakes, also: Iterable[str] = ()) -> T | None:
    """`node` as an instance of `options`; `None` after adding to `mistakes` whatever is wrong with it.

    `also`: keys that stand beside those of `options` and have been taken out already, for the suggestions.
    """
    try:
        value: T = adapter(cast("Any", options)).validate_json(json.dumps(node.data()))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    except ManifestError as error:  # from an `Options.__post_init__`
        mistakes.add(node, trail, error.message)
        return None
    else:
        return value
    # A union gives one error per member, at the same place.
    for below, group in groupby(found, key=lambda detail: _trail(node, detail)):
        at, _ = _locate(node, below)
        known = [*_keys_at(options, below[:-1]), *(also if len(below) == 1 else ())]
        mistakes.add(at, (*trail, *below), _problem(at, list(group), known))
    return None


def got(node: Node, expected: str) -> str:
    """What stands at `node`, in words, and what to do if quotes are all that is wrong."""
    value = node.value
    if isinstance(value, dict | list):
        return f"{'a mapping' if isinstance(value, dict) else 'a list'}{'' if value else ' with nothing in it'}"
    if isinstance(value, str):
        number = node.quoted and "number" in expected and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", value)
        return f"'{one_line(value)}'{'; take the quotes away' if number else ''}"
    if not node.text:
        return "nothing"
    # YAML's traps: an all-digit revision, a country called no.
    if expected == "text" or f"'{node.text}'" in expected:
        return f"{node.text}, which YAML reads as {reads_as(value)}; quote it: '{node.text}'"
    return node.text


def _locate(top: Node, loc: Trail) -> tuple[Node, Trail]:
    """The nearest node to what pydantic's `loc` names, and the way to it."""
    node, found = top, 0
    for step in loc:
        inside: Any = dict(enumerate(node.value)) if isinstance(node.value, list) else node.value
        if not isinstance(inside, dict) or step not in inside:
            break
        node, found = inside[step], found + 1
    return node, loc[:found]


def _trail(top: Node, detail: ErrorDetails) -> Trail:
    """The key that `detail` is about: a missing one, or without pydantic's extra steps such as a union's member."""
    trail = _locate(top, detail["loc"])[1]
    return (*trail, detail["loc"][-1]) if detail["type"] == "missing" else trail


def _problem(node: Node, group: list[ErrorDetails], known: Iterable[str]) -> str:
    detail = group[0]
    match detail["type"]:
        case "missing":
            return "missing"
        case "unexpected_keyword_argument":
            return f"unknown key{did_you_mean(str(detail['loc'][-1]), known)}"
        case "value_error":
            return one_line(str(detail["ctx"]["error"]))
    if words := list(dict.fromkeys(filter(None, map(_words, group)))):
        expected = " or ".join(words)
        is_key = detail["loc"][-1:] == ("[key]",)
        return f"expected {expected}, got {repr(detail['loc'][-2]) if is_key else got(node, expected)}"
    return f"{re.sub('^[A-Z][a-z]+ should', 'should', detail['msg'])}, got {got(node, '')}"


def _words(detail: ErrorDetails) -> str | None:
    match detail["type"]:
        case "expected":
            return str(detail["ctx"]["what"])
        case "literal_error":
            return str(detail["ctx"]["expected"])
    return _WORDS.get(detail["type"])


def _keys_at(hint: Any, loc: Trail) -> list[str]:
    """The keys of the dataclass that `loc` leads to inside the type `hint`."""
    for step in loc:
        if is_dataclass(hint):
            hint = get_type_hints(hint).get(str(step))
        else:  # the values of a mapping, the items of a list
            hint = next((inner for inner in reversed(get_args(hint)) if inner is not Ellipsis), None)
        if NoneType in get_args(hint):
            hint = next(inner for inner in get_args(hint) if inner is not NoneType)
    return [item.name for item in fields(hint)] if is_dataclass(hint) else []
