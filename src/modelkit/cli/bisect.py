"""`modelkit bisect`: which nodes make an artifact differ from its float32 model, and what more precision would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkit.cli._selection import OFFLINE, PATHS, built, named, printed, progress_bars

if TYPE_CHECKING:
    from modelkit.bisecting import Finding
    from modelkit.vocabulary import Manifest, Variant


@click.command("bisect")
@click.argument("name", metavar="NAME/VARIANT")
@PATHS
@click.option("--texts", type=click.IntRange(min=1), default=6, show_default=True, help="How many texts to run.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many nodes to show.")
@OFFLINE
def command(name: str, paths: tuple[Path, ...], *, texts: int, top: int, offline: bool) -> None:
    """Put each node of NAME/VARIANT, alone, in the place of the float32 model's, and rank them by what that changes."""
    from modelkit import bisecting, corpora  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    manifest, variant = named(name, paths)
    store = Store()
    with progress_bars() as progress:
        build, artifact = built(manifest, variant, store, progress, offline=offline)
        with store.workspace("bisecting") as place:
            rows = corpora.shorter(corpora.rows(manifest)[0], texts)
            report = bisecting.bisect(manifest, build.artifact("converted"), artifact, place, progress, rows)
    if not report.findings:
        click.echo(f"{name} computes every value as its float32 model does")
        return
    click.echo(_table(name, report.findings[:top]), nl=False)
    click.echo(
        f"The whole artifact moves the output by {report.total:.4g}; {report.pieces} nodes differ from float32, "
        f"the first {min(top, len(report.findings))} of {len(report.findings)} measured ones make "
        f"{sum(one.share for one in report.findings[:top]):.0%} of it."
    )
    for one in report.suspects:
        click.echo(f"{one.value} is suspect: its own error, {one.own:.2g}, is many times that of most nodes")
    for line in _advice(manifest, variant, report.findings):
        click.echo(line)


def _table(name: str, findings: Sequence[Finding]) -> str:
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=f"{name}: relative errors of one node at a time", title_justify="left", title_style="bold")
    for heading in ("node", "its own", "output", "share", "in 8 bits", "in float32"):
        table.add_column(heading, justify="left" if heading == "node" else "right", overflow="fold")
    parts = len({one.part for one in findings}) > 1
    for one in findings:
        node = f"{one.part}: {one.value}" if parts else one.value
        figures = (f"{one.own:.2g}", f"{one.output:.2g}", f"{one.share:.0%}")
        table.add_row(node, *figures, _more(one.to_8bit), _more(one.to_float32))
    return printed(table)


def _more(size: int | None) -> str:
    if size is None:
        return "-"
    return f"{size / 1e6:+.2f} MB" if abs(size) >= 10_000 else f"{size / 1e3:+.2f} kB"


def _advice(manifest: Manifest, variant: Variant, findings: Sequence[Finding]) -> list[str]:
    """What the variant's scheme lets the author do about the worst node, in the manifest's own words."""
    worst = next((one for one in findings if one.weights), None)
    if worst is None:
        return []
    weight, options = worst.weights[0], variant.scheme.options
    place = manifest.place(f"variants.{variant.name}.scheme")
    offers = {item.name: getattr(options, item.name) for item in fields(options)}
    lines = [
        f"{place}: {key} with '{weight}' {told}"
        for key, told in _offered(worst).items()
        if _is_open(offers, key, weight)
    ]
    return lines or [f"{place}: {variant.scheme.kind} has no option that gives '{weight}' more precision"]


def _offered(worst: Finding) -> dict[str, str]:
    eight = {"weights_8bit": f"would cost {_more(worst.to_8bit)}"} if worst.to_8bit is not None else {}
    # What looks rows up multiplies no activation.
    finer = {"activations_16bit": "would cost no bytes, but one more product"} if worst.kind != "Gather" else {}
    return {**eight, **finer}


def _is_open(offers: dict[str, Any], key: str, weight: str) -> bool:
    from fnmatch import fnmatchcase  # noqa: PLC0415

    return key in offers and not any(fnmatchcase(weight, pattern) for pattern in offers[key])
