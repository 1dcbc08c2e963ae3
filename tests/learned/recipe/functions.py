"""Small Python functions and the sentence that says what each does: the body decides it, the name tells nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from string import Formatter

NOUNS = (
    "account", "book", "card", "client", "device", "event", "game", "guest", "image", "island", "item", "letter",
    "message", "number", "order", "page", "player", "product", "record", "room", "route", "ticket", "user", "word",
)  # fmt: skip
QUALITIES = (
    "age", "amount", "color", "cost", "date", "height", "label", "length", "level", "limit", "name", "path", "price",
    "rank", "rate", "score", "size", "speed", "state", "title", "value", "weight", "width", "year",
)  # fmt: skip
ADJECTIVES = ("best", "daily", "first", "late", "local", "main", "new", "old")
VERBS = ("apply", "do", "handle", "make", "process", "run", "step", "work")
"""What functions are called here; any of them fits any body."""
EACH = "for {item} in {items}:"
FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "arithmetic": (
        ("return {a} + {b}", "Adds {a} to {b}."),
        ("return {a} - {b}", "Subtracts {b} from {a}."),
        ("return {a} * {b}", "Multiplies {a} by {b}."),
        ("return {a} / {b}", "Divides {a} by {b}."),
        ("result = {a} + {b}\nreturn result", "Adds {a} to {b}."),
    ),
    "filter": (
        ("return [{item} for {item} in {items} if {item} > {a}]", "Keeps the {items} above {a}."),
        ("return [{item} for {item} in {items} if {item} < {a}]", "Keeps the {items} below {a}."),
        (f"kept = []\n{EACH}\n    if {{item}} > {{a}}:\n        kept.append({{item}})\nreturn kept",
         "Keeps the {items} above {a}."),
    ),
    "count": (
        ("return sum(1 for {item} in {items} if {item} > {a})", "Counts the {items} above {a}."),
        ("return sum(1 for {item} in {items} if {item} == {a})", "Counts the {items} equal to {a}."),
        (f"count = 0\n{EACH}\n    if {{item}} == {{a}}:\n        count += 1\nreturn count",
         "Counts the {items} equal to {a}."),
    ),
    "extreme": (
        ("return max({items})", "Returns the largest of the {items}."),
        ("return min({items})", "Returns the smallest of the {items}."),
        (f"best = {{items}}[0]\n{EACH}\n    if {{item}} > best:\n        best = {{item}}\nreturn best",
         "Returns the largest of the {items}."),
        (f"best = {{items}}[0]\n{EACH}\n    if {{item}} < best:\n        best = {{item}}\nreturn best",
         "Returns the smallest of the {items}."),
    ),
    "sort": (
        ("return sorted({items}, key=lambda {item}: {item}.{field})", "Sorts the {items} by {field}."),
        ("return sorted({items}, key=lambda {item}: {item}.{field}, reverse=True)",
         "Sorts the {items} by {field} in descending order."),
    ),
    "read": (
        ("with open({a}, encoding={b}) as stream:\n    return stream.read()",
         "Reads the file {a}, whose encoding is {b}."),
        ("with open({a}, encoding={b}) as stream:\n    return json.load(stream)",
         "Reads JSON from the file {a}, whose encoding is {b}."),
        ("with open({a}, encoding={b}) as stream:\n    return stream.readlines()",
         "Reads the lines of the file {a}, whose encoding is {b}."),
    ),
    "join": (
        ("return {a}.join({items})", "Joins the {items} with {a}."),
        ("return {a}.join(str({item}) for {item} in {items})", "Joins the {items} with {a}."),
    ),
    "look up": (
        ("return {items}[{a}]", "Looks up {a} in {items}."),
        ("return {items}.get({a}, {b})", "Looks up {a} in {items}, with {b} as default."),
        ("if {a} in {items}:\n    return {items}[{a}]\nreturn {b}", "Looks up {a} in {items}, with {b} as default."),
    ),
    "accumulate": (
        (f"total = 0\n{EACH}\n    total += {{item}}.{{field}}\nreturn total", "Sums the {field} of all {items}."),
        ("return sum({item}.{field} for {item} in {items})", "Sums the {field} of all {items}."),
        (f"total = 1\n{EACH}\n    total *= {{item}}.{{field}}\nreturn total",
         "Multiplies the {field} of all {items}."),
    ),
    "validate": (
        ("if {a} < {b}:\n    raise ValueError({a})\nreturn {a}", "Raises an error if {a} is below {b}."),
        ("if {a} > {b}:\n    raise ValueError({a})\nreturn {a}", "Raises an error if {a} is above {b}."),
        ("if not {a}:\n    raise ValueError({b})\nreturn {a}", "Raises an error if {a} is empty."),
    ),
}  # fmt: skip
"""Kind -> bodies and their summaries. Identifiers: `items` a list or a dict, `item` one of them, `a` and `b` values,
`field` an attribute."""
PARAMETERS = ("items", "a", "b")


@dataclass(frozen=True)
class Function:
    """`code` and its `summary`; `kind` is a key of `FORMS`."""

    kind: str
    code: str
    summary: str


def examples(seed: int, *, held_out: bool, plain: bool = False) -> Iterator[Function]:
    """Functions without end; the kinds are equally frequent.

    Of a `plain` one the parameters stand in the order in which the body names them, and a first value never has a name
    that a second one may have; otherwise only the body tells which is which.

    The identifiers of a held-out function never stand in the same places of one that is not held out.
    """
    draw = random.Random(seed)
    while True:
        kind = draw.choice(list(FORMS))
        body, summary = draw.choice(FORMS[kind])
        names = identifiers(draw, plain=plain)
        used = [names[key] for key in ("items", "a", "b", "field") if f"{{{key}}}" in body]
        if is_held_out(used) == held_out:
            yield Function(kind, code(draw, body, names, plain=plain), summary.format(**names))


def identifiers(draw: random.Random, *, plain: bool) -> dict[str, str]:
    """A name for each place of a form."""
    item = draw.choice(NOUNS)
    a, b, field = draw.sample(QUALITIES, 3)
    if plain:
        a, b = draw.choice(QUALITIES[::2]), draw.choice(QUALITIES[1::2])
    return {
        "item": item,
        "items": f"{described(draw, item)}s",
        "a": a,
        "b": b,
        "field": field,
    }


def described(draw: random.Random, noun: str) -> str:
    """`noun`, or every other time with an adjective."""
    return f"{draw.choice(ADJECTIVES)}_{noun}" if draw.random() < 1 / 2 else noun


def is_held_out(names: list[str]) -> bool:
    """One combination out of eight is: the same ones on every machine."""
    return sha256(" ".join(names).encode()).digest()[0] % 8 == 0


def code(draw: random.Random, body: str, names: dict[str, str], *, plain: bool) -> str:
    """A function with `body`."""
    used = [key for _, key, _, _ in Formatter().parse(body)]
    keys = [key for key in PARAMETERS if key in used]
    if plain:
        keys.sort(key=used.index)
    else:
        draw.shuffle(keys)
    parameters = [names[key] for key in keys]
    lines = "".join(f"    {line}\n" for line in body.format(**names).split("\n"))
    return f"def {draw.choice(VERBS)}_{draw.choice(NOUNS)}({', '.join(parameters)}):\n{lines}"
