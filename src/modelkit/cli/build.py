"""`modelkit build`: finished folders, without the checks."""

from __future__ import annotations

import shutil

import click

from modelkit.cli._selection import Selection, prepared, progress_bars, select, selects


@click.command("build")
@click.option("--force", is_flag=True, help="Build again, compare with what is stored, replace changed folders.")
@click.option("--clean", is_flag=True, help="Remove the selected finished folders once their successors are built.")
@selects
def command(selection: Selection, *, force: bool, clean: bool) -> None:
    """Build the selected variants into build/<channel>/out/Final/<name>/."""
    from modelkit import delivery, pipeline  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    pairs, store = select(selection), Store()
    with progress_bars() as progress:
        for manifest, variant, locked, prepare in prepared(pairs, selection, store, progress, force=force):
            build = prepare()
            artifact = pipeline.build(build, locked)
            folder = delivery.folder_of(manifest, variant, selection.out)
            if clean:
                shutil.rmtree(folder, ignore_errors=True)
            delivery.deliver(artifact, folder, force=force)
            for line in (*build.job.told, *store.dropped):
                click.echo(f"{build.job.name}: {line}")
            store.dropped.clear()
            made = "from the store" if artifact.reused else "built"
            click.echo(f"{build.job.name}: {made}, {artifact.size / 1e6:.2f} MB in {folder}")
