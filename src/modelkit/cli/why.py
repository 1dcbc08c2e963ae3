"""`modelkit why`: why an artifact is reused, or why it would be built again."""

from __future__ import annotations

from pathlib import Path

import click

from modelkit.cli._selection import PATHS, named


@click.command("why")
@click.argument("name", metavar="NAME/VARIANT")
@PATHS
def command(name: str, paths: tuple[Path, ...]) -> None:
    """Print the chain of stages behind NAME/VARIANT and, for one that is not in the store, what differs."""
    from modelkit import lock, pipeline  # noqa: PLC0415
    from modelkit.digests import difference  # noqa: PLC0415
    from modelkit.errors import ManifestError  # noqa: PLC0415
    from modelkit.stages.job import Job  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    manifest, variant = named(name, paths)
    if (locked := lock.read(manifest.path)) is None:
        raise ManifestError("is a draft: what it is built from is not pinned", where=manifest.path,
                            hint=f"run `modelkit lock {manifest.path}`")  # fmt: skip
    lock.insist_current(manifest, locked)
    store = Store()
    build = pipeline.Build(Job(manifest, variant, locked.source), store)
    for module in pipeline.STAGES:
        if any(store.find(build.stage(needed).key, verify=False) is None for needed in module.INPUTS):
            click.echo(f"{module.NAME:<10} unknown until its inputs are made: {', '.join(module.INPUTS)}")
            continue
        stage = build.stage(module.NAME)
        if store.find(stage.key) is not None:
            click.echo(f"{module.NAME:<10} {stage.key[:12]}  reused: same inputs, options and tools")
            continue
        last = store.last(f"{name}/{module.NAME}")
        changes = difference(last.material, stage.material) if last else []
        reason = "; ".join(changes) if changes else "never built here" if last is None else "gone from the store"
        click.echo(f"{module.NAME:<10} {stage.key[:12]}  to be made: {reason}")
