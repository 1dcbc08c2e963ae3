"""`modelkit check`: the checks of `pytest --modelkit`, without pytest."""

from __future__ import annotations

import sys

import click

from modelkit.cli._selection import Selection, prepared, progress_bars, select, selects


@click.command("check")
@click.option("--force", is_flag=True, help="Build again and replace changed folders.")
@selects
def command(selection: Selection, *, force: bool) -> None:
    """Build and check the selected variants; exit 1 if one does not conform, 3 if a check could not run."""
    from modelkit import conformance, delivery, pipeline  # noqa: PLC0415
    from modelkit.errors import CONFORMING, COULD_NOT_RUN, NOT_CONFORMING  # noqa: PLC0415
    from modelkit.reports import evidence, table  # noqa: PLC0415
    from modelkit.reports.records import record  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    pairs, store, records = select(selection), Store(), []
    with progress_bars() as progress:
        for build, locked in prepared(pairs, selection, store, progress, force=force):
            artifact, job = pipeline.build(build, locked), build.job
            folder = delivery.folder_of(job.manifest, job.variant, selection.out)
            delivery.deliver(artifact, folder, force=force)
            for verdict in conformance.examine(build, artifact):
                records.append(record(job.manifest, job.variant, verdict, artifact, folder, job.told))
                click.echo(f"{job.name}: {verdict.check}: {verdict.outcome}: {verdict.sentence}")
    evidence.write(records, selection.out)
    click.echo(table.render(records, color=sys.stdout.isatty()), nl=False)
    outcomes = {one["verdict"]["outcome"] for one in records}
    sys.exit(COULD_NOT_RUN if "errored" in outcomes else NOT_CONFORMING if "failed" in outcomes else CONFORMING)
