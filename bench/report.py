"""Markdown tables, and a figure beside its target."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def against(rows: Iterable[tuple[str, float, str, str, float]]) -> str:
    """A table of (what, measured, format, `<=` or `>=`, target), each said to be met or not met."""
    return table(
        ("what", "measured", "target", ""),
        [
            (what, form.format(value), f"{sign} {form.format(limit)}", _said(value, sign, limit))
            for what, value, form, sign, limit in rows
        ],
    )


def _said(value: float, sign: str, limit: float) -> str:
    met = value <= limit if sign == "<=" else value >= limit
    return "met" if met else "**not met**"


def tell(line: str) -> None:
    """Progress, apart from the result."""
    print(line, file=sys.stderr, flush=True)
