"""Beginnings of files, and the JSON in which a model says what kind of file each belongs to."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from learned.recipe import functions

QUESTION = (
    "Which category does this file belong to: {categories}? "
    'Answer with JSON such as {{"category": "code"}}.\n\n```\n{snippet}\n```'
)


@dataclass(frozen=True)
class File:
    """A beginning of a file, and its category."""

    category: str
    snippet: str


def examples(seed: int, *, held_out: bool) -> Iterator[File]:
    """Files without end; the categories are equally frequent, and held-out files are built from names of their own."""
    draw = random.Random(seed)
    while True:
        category = draw.choice(list(CATEGORIES))
        names = [functions.described(draw, draw.choice(functions.NOUNS)) for _ in range(2)]
        if functions.is_held_out(names) == held_out:
            yield File(category, draw.choice(CATEGORIES[category])(draw, *names).strip("\n"))


def message(snippet: str) -> list[dict[str, str]]:
    """The conversation that asks for the category of `snippet`."""
    asked = QUESTION.format(categories=", ".join(CATEGORIES), snippet=snippet)
    return [{"role": "user", "content": asked}]


def answer(category: str) -> str:
    """What is to be said."""
    return json.dumps({"category": category})


def _function(draw: random.Random, one: str, other: str) -> str:
    found = next(islice(functions.examples(draw.randrange(10**6), held_out=False), 1))
    return f"import {one}\n\n\n{found.code}" if draw.random() < 1 / 2 else found.code


def _class(draw: random.Random, one: str, other: str) -> str:
    quality = draw.choice(functions.QUALITIES)
    verb = draw.choice(functions.VERBS)
    return f"class {_camel(one)}:\n    def {verb}(self, {other}):\n        return {other}.{quality}\n"


def _script(draw: random.Random, one: str, other: str) -> str:
    verb = draw.choice(functions.VERBS)
    return f"const {one} = require('{other}');\nfunction {verb}({other}) {{\n  return {other};\n}}\n"


def _readme(draw: random.Random, one: str, other: str) -> str:
    verb = draw.choice(("Install", "Run", "Read", "Use"))
    return f"# The {one}\n\n{verb} the {one} before each {other}.\n\n## How to {draw.choice(functions.VERBS)} it\n"


def _guide(draw: random.Random, one: str, other: str) -> str:
    return f"The {one}\n========\n\nThis page tells how a {one} becomes a {other}. See also the page on {other}s.\n"


def _list(draw: random.Random, one: str, other: str) -> str:
    return f"## Changes\n\n- The {one} has a {draw.choice(functions.QUALITIES)} now.\n- Each {other} is shorter.\n"


def _ini(draw: random.Random, one: str, other: str) -> str:
    values = draw.sample(functions.QUALITIES, 2)
    return f"[{one}]\n{values[0]} = {draw.randrange(100)}\n{values[1]} = true\n\n[{other}]\n{values[0]} = off\n"


def _yaml(draw: random.Random, one: str, other: str) -> str:
    values = draw.sample(functions.QUALITIES, 2)
    return f"{one}:\n  {values[0]}: {draw.randrange(100)}\n  {values[1]}: enabled\n{other}:\n  - default\n"


def _environment(draw: random.Random, one: str, other: str) -> str:
    return f"{one.upper()}_PORT={draw.randrange(1000, 9999)}\n{other.upper()}_DEBUG=false\n"


def _table(draw: random.Random, one: str, other: str) -> str:
    head = ",".join(("id", *draw.sample(functions.QUALITIES, 2)))
    rows = (f"{n},{draw.randrange(100)},{draw.randrange(100)}" for n in range(1, draw.randrange(3, 5)))
    return "\n".join((head, *rows))


def _rows(draw: random.Random, one: str, other: str) -> str:
    quality = draw.choice(functions.QUALITIES)
    rows = ({"id": n, one: other, quality: draw.randrange(100)} for n in range(1, draw.randrange(3, 5)))
    return "\n".join(json.dumps(row) for row in rows)


def _markup(draw: random.Random, one: str, other: str) -> str:
    rows = (f'  <{other} id="{n}">{draw.randrange(100)}</{other}>\n' for n in range(1, draw.randrange(3, 5)))
    return f"<{one}s>\n{''.join(rows)}</{one}s>\n"


def _pytest(draw: random.Random, one: str, other: str) -> str:
    verb = draw.choice(functions.VERBS)
    lines = f"def test_{verb}_gives_{other}():\n    assert {verb}({draw.randrange(9)}) == {other}\n"
    return f"from {one} import {verb}\n\n\n{lines}"


def _unittest(draw: random.Random, one: str, other: str) -> str:
    call = f"self.assertEqual({draw.choice(functions.VERBS)}({other}), {draw.randrange(9)})"
    return f"class Test{_camel(one)}(TestCase):\n    def test_{other}(self):\n        {call}\n"


def _jest(draw: random.Random, one: str, other: str) -> str:
    call = f"expect({draw.choice(functions.VERBS)}({one})).toBe({other});"
    return f"describe('{one}', () => {{\n  it('has a {other}', () => {{\n    {call}\n  }});\n}});\n"


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


CATEGORIES: dict[str, tuple[Callable[[random.Random, str, str], str], ...]] = {
    "code": (_function, _class, _script),
    "documentation": (_readme, _guide, _list),
    "configuration": (_ini, _yaml, _environment),
    "data": (_table, _rows, _markup),
    "test": (_pytest, _unittest, _jest),
}
"""Category -> what writes files of it: `write(draw, name, another name)`."""
