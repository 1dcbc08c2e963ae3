"""A recipe in a manifest's own words, put into its file without touching anything else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from modelkit import durable, manifest
from modelkit.errors import ManifestError
from modelkit.vocabulary import Choice, Manifest


def lines(recipe: Choice) -> list[str]:
    """The key `scheme` in YAML; what is the standard is left out."""
    standard = asdict(type(recipe.options)())
    told = {name: value for name, value in asdict(recipe.options).items() if value != standard[name]}
    if not told:
        return [f"scheme: {recipe.kind}"]
    return ["scheme:", f"  {recipe.kind}:", *(f"    {name}: {_value(value)}" for name, value in told.items())]


def _value(value: Any) -> str:
    # JSON is YAML, but a bare word reads better; a pattern needs its quotes.
    return value if isinstance(value, str) and value.isalpha() else json.dumps(value)


def put(read: Manifest, variant: str, recipe: Choice) -> Manifest:
    """Write `recipe` as the scheme of `variant` into the file of `read`, and read that again.

    Raises `ManifestError` with what to write when the file is not laid out in lines; it is left as it was.
    """
    before = read.path.read_bytes()
    wanted = replace(read.variants[variant], scheme=recipe)
    try:
        durable.put(read.path, _edited(before.decode("utf-8"), read, variant, lines(recipe)).encode())
        now = _read_as(replace(read, variants={**read.variants, variant: wanted}))
    except ManifestError as error:
        durable.put(read.path, before)
        raise ManifestError(
            f"the recipe could not be put there ({'; '.join(error.mistakes)})",
            where=read.place(f"variants.{variant}"),
            hint=f"write it yourself: {json.dumps({'scheme': {recipe.kind: asdict(recipe.options)}})}",
        ) from error
    return now


def _read_as(wanted: Manifest) -> Manifest:
    now = manifest.load(wanted.path)
    if now != wanted:
        raise ManifestError("more than the recipe would change")
    return now


def _edited(text: str, read: Manifest, variant: str, recipe: list[str]) -> str:
    rows, key = text.splitlines(keepends=True), f"variants.{variant}"
    first = read.places[key].line
    below = [place for name, place in read.places.items() if name.rpartition(".")[0] == key]
    if not below or min(place.line for place in below) == first:
        raise ManifestError("its keys stand on one line")
    start, indent = first, below[0].column - 1
    end = start
    if old := read.places.get(f"{key}.scheme"):
        start = old.line - 1
        end = old.line + _deeper(rows[old.line :], indent)
    return "".join([*rows[:start], *(f"{' ' * indent}{row}\n" for row in recipe), *rows[end:]])


def _deeper(rows: list[str], indent: int) -> int:
    """How many of `rows` belong to what stands above them; empty ones at the end do not."""
    found = 0
    for number, row in enumerate(rows, 1):
        if row.strip() and len(row) - len(row.lstrip(" ")) <= indent:
            break
        found = number if row.strip() else found
    return found
