"""`modelkit validate`: manifests only, no network."""

from __future__ import annotations

from pathlib import Path

import click

from modelkit.cli._selection import PATHS, manifests


@click.command("validate")
@PATHS
def command(paths: tuple[Path, ...]) -> None:
    """Read manifests and report every mistake, with file, line and column. Fetches and builds nothing."""
    for manifest in manifests(paths):
        click.echo(f"{manifest.path}: {manifest.name}: {', '.join(manifest.variants)}")
