"""`modelkit lock`: pin what a manifest resolves to, and what comes out."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelkit.cli._selection import PATHS, manifests, progress_bars


@click.command("lock")
@PATHS
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a lock is missing or no longer true.")
@click.option("--offline", is_flag=True, help="Never use the network; fail if it is needed.")
def command(paths: tuple[Path, ...], *, check: bool, offline: bool) -> None:
    """Resolve, build and check manifests, and write x.lock beside each x.yaml."""
    from modelkit import durable, lock, locking  # noqa: PLC0415
    from modelkit.errors import CONFORMING, NOT_CONFORMING  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    stale, store = False, Store()
    with progress_bars() as progress:
        for manifest in manifests(paths):
            path = lock.path_of(manifest.path)
            if check and not path.exists():
                # That needs no look at what its source serves today.
                stale = True
                click.echo(f"{path}: there is no lock yet")
                continue
            fresh = locking.resolved(manifest, store, offline=offline, progress=progress)
            earlier = lock.read_if_sound(manifest.path)
            differences = locking.compare(earlier, fresh)
            if check:
                stale = stale or bool(differences)
                click.echo("\n".join(f"{path}: {line}" for line in differences) or f"{path}: true")
            else:
                durable.put(path, lock.text(fresh).encode())
                click.echo(f"{path}: {locking.told(earlier, fresh)}")
    sys.exit(NOT_CONFORMING if stale else CONFORMING)
