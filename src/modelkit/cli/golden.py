"""`modelkit golden`: record what the original implementation gives, for the check of that name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelkit.cli._selection import OFFLINE, PATHS, manifests, progress_bars

if TYPE_CHECKING:
    from modelkit.pipeline import Build


@click.command("golden")
@PATHS
@OFFLINE
def command(paths: tuple[Path, ...], *, offline: bool) -> None:
    """Run each manifest's original model in the reference environment and write conformance/golden/NAME.json.

    Where no folder above the manifest has a conformance/, it is NAME.golden.json beside the manifest. The environment
    is made first when it is missing (about a minute, 1.1 GB).
    """
    from modelkit import durable, lock, pipeline  # noqa: PLC0415
    from modelkit.reference import environment, recorded  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415
    from modelkit.vocabulary import Fetching  # noqa: PLC0415

    loaded, store = manifests(paths), Store()
    with progress_bars() as progress:
        environment.python(progress)
        pins = pipeline.Pins(store)
        for manifest in loaded:
            variant = next(iter(manifest.variants.values()))
            context = Fetching(manifest.path.parent, offline, progress)
            build = pins.prepare(manifest, variant, lock.read(manifest.path), context)
            path, content = recorded.path_of(manifest), _recorded(build).encode()
            same = path.is_file() and path.read_bytes() == content
            durable.put(path, content)
            click.echo(f"{path}: {'unchanged' if same else 'written'}, {len(content) / 1e3:.1f} kB")


def _recorded(build: Build) -> str:
    from modelkit import corpora  # noqa: PLC0415
    from modelkit.reference import process, recorded  # noqa: PLC0415

    manifest = build.job.manifest
    rows = recorded.select(corpora.rows(manifest)[0])
    request = {
        "source": str(build.artifact("downloaded").folder.absolute()),
        "task": manifest.task.kind,
        "options": recorded.plain(manifest.task.options),
        "texts": [row["text"] for row in rows],
    }
    answer = process.answer("outputs", request)
    return recorded.text(manifest, build.job.files, rows, answer["outputs"], answer["versions"])
