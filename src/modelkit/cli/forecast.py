"""`modelkit forecast`: how large an artifact will be, before anything is quantized."""

from __future__ import annotations

from pathlib import Path

import click

from modelkit.cli._selection import OFFLINE, PATHS, named, pinned, progress_bars


@click.command("forecast")
@click.argument("name", metavar="NAME/VARIANT")
@PATHS
@OFFLINE
def command(name: str, paths: tuple[Path, ...], *, offline: bool) -> None:
    """Say how large (within 2 %) the model of NAME/VARIANT will be, and whether that fits its budget."""
    from modelkit.stages import quantize  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    manifest, variant = named(name, paths)
    with progress_bars() as progress:
        build = pinned(manifest, variant, Store(), progress, offline=offline)
        size = quantize.forecast(variant.scheme, build.artifact("converted").folder)
    allowed = "" if variant.budget is None else f" of {variant.budget / 1e6:.2f} MB, {_spare(size, variant.budget)}"
    click.echo(f"{name}: {size / 1e6:.2f} MB{allowed}")


def _spare(size: int, budget: int) -> str:
    return f"{(budget - size) / budget:.1%} to spare" if size <= budget else f"{(size - budget) / budget:.1%} too much"
