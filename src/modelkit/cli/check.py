"""`modelkit check`: the checks of `pytest --modelkit`, without pytest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkit import conformance, delivery, pipeline
from modelkit.check_modules import PROFILES
from modelkit.cli._selection import Selection, prepared, progress_bars, select, selects
from modelkit.errors import ArtifactError, ModelkitError
from modelkit.reports.records import details, record
from modelkit.vocabulary import Manifest, Variant, Verdict

if TYPE_CHECKING:
    from modelkit.lock import Lock
    from modelkit.pipeline import Build


@click.command("check")
@click.option("--force", is_flag=True, help="Build again and replace changed folders.")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default=PROFILES[0],
    show_default=True,
    help="How much is checked; each profile runs the checks of those before it, too.",
)
@click.option(
    "--examples", type=click.IntRange(min=1), metavar="N", help="How many examples a check that searches tries."
)
@selects
def command(selection: Selection, *, force: bool, profile: str, examples: int | None) -> None:
    """Build and check the selected variants; exit 1 if one does not conform, 3 if a check could not run."""
    from modelkit.errors import CONFORMING, COULD_NOT_RUN, NOT_CONFORMING  # noqa: PLC0415
    from modelkit.reports import evidence, table  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    pairs, store, records = select(selection), Store(), []
    with progress_bars() as progress:
        for manifest, variant, locked, prepare in prepared(pairs, selection, store, progress, force=force):
            folder = delivery.folder_of(manifest, variant, selection.out)
            for one in _examined(manifest, variant, locked, prepare, folder, force, profile, examples):
                records.append(one)
                verdict = one["verdict"]
                click.echo(f"{manifest.name}/{variant.name}: {verdict['check']}: {verdict['outcome']}: "
                           f"{verdict['sentence']}")  # fmt: skip
                for line in details(verdict["worst"], one["again"]) if verdict["outcome"] == "failed" else ():
                    click.echo(line)
    evidence.write(records, selection.out)
    click.echo(table.render(records, color=sys.stdout.isatty()), nl=False)
    outcomes = {one["verdict"]["outcome"] for one in records}
    sys.exit(NOT_CONFORMING if "failed" in outcomes else COULD_NOT_RUN if "errored" in outcomes else CONFORMING)


def _examined(
    manifest: Manifest,
    variant: Variant,
    locked: Lock | None,
    prepare: Callable[[], Build],
    folder: Path,
    force: bool,
    profile: str,
    examples: int | None,
) -> Iterator[dict[str, Any]]:
    """The records of one variant; a build that fails is one errored record, and the other variants still get theirs."""
    draft = locked is None
    try:
        build = prepare()
        artifact = pipeline.build(build, locked)
        delivery.deliver(artifact, folder, force=force)
        examination = conformance.Examination(build, artifact, profile, examples)
        keys, standing = examination.keys(), examination.standing()
    except ArtifactError as error:
        yield record(manifest, variant, Verdict("build", "failed", str(error)), draft=draft)
        return
    except ModelkitError as error:
        yield record(manifest, variant, Verdict("build", "errored", str(error)), draft=draft)
        return
    for verdict in conformance.examine(examination):
        yield record(
            *(manifest, variant, verdict, artifact, folder, build.job.told, draft),
            *(keys, standing, profile, examples),
        )
