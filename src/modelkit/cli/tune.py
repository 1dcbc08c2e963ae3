"""`modelkit tune`: find the recipe that keeps a variant within its budget and its limits."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelkit.cli._selection import OFFLINE, PATHS, named, printed, progress_bars

if TYPE_CHECKING:
    from modelkit.tuning import Tuned
    from modelkit.tuning.search import Trial
    from modelkit.vocabulary import Manifest, Variant


@click.command("tune")
@click.argument("name", metavar="NAME/VARIANT")
@PATHS
@click.option("--minutes", type=click.FloatRange(min=0), default=8, show_default=True, help="How long to search.")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Search no longer than this many recipes.")
@click.option(
    "--products",
    type=click.FloatRange(min=1),
    default=1.1,
    show_default=True,
    help="Most integer products per weight; 1 leaves every activation at 8 bits.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another one draws other recipes.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw all recipes to this file.")
@click.option("--dry-run", is_flag=True, help="Search and prove, but leave the manifest as it is.")
@OFFLINE
def command(
    name: str,
    paths: tuple[Path, ...],
    *,
    minutes: float,
    trials: int | None,
    products: float,
    seed: int,
    picture: Path | None,
    dry_run: bool,
    offline: bool,
) -> None:
    """Search a recipe for NAME/VARIANT, prove it with all checks, and write it into the manifest and the lock.

    A search that was cut off goes on where it was. Exit 1 if no recipe passes; the manifest is left as it was then.
    """
    from modelkit import locking, tuning  # noqa: PLC0415
    from modelkit.errors import CONFORMING, NOT_CONFORMING  # noqa: PLC0415
    from modelkit.pipeline import Build  # noqa: PLC0415
    from modelkit.stages.job import Job  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415
    from modelkit.tuning import pareto, written  # noqa: PLC0415
    from modelkit.vocabulary import Fetching  # noqa: PLC0415

    manifest, variant = named(name, paths)
    store, best = Store(), _Best(name)
    limits = tuning.Limits(60 * minutes, trials, products, seed)
    with progress_bars() as progress:
        context = Fetching(manifest.path.parent, offline, progress)
        _, files = locking.pinned(manifest, store, context)
        build = Build(Job(manifest, variant, files, context), store)
        tuned = tuning.tune(build, limits, progress, best.hear)
    click.echo(_table(name, tuned), nl=False)
    for number, verdict in tuned.broken.items():
        click.echo(f"recipe {number} does not conform: {verdict.check}: {verdict.sentence}")
    if picture:
        pareto.draw(tuned.trials, tuned.chosen, variant.budget, picture)
        click.echo(f"{picture}: {len(tuned.trials)} recipes")
    if tuned.chosen is None:
        click.echo(f"{name}: none of {len(tuned.trials)} recipes conforms{_why(tuned, variant)}")
        sys.exit(NOT_CONFORMING)
    click.echo("\n".join(written.lines(tuned.chosen.recipe)))
    if not dry_run:
        read = written.put(manifest, variant.name, tuned.chosen.recipe)
        click.echo(f"{manifest.path}: the scheme of {variant.name} is recipe {tuned.chosen.number}")
        _lock(read, variant.name, tuned.reason, store, offline)
    sys.exit(CONFORMING)


def _why(tuned: Tuned, variant: Variant) -> str:
    sizes = [one.size for one in tuned.trials if one.size is not None]
    if any(one.error is not None for one in tuned.trials) or not sizes or variant.budget is None:
        return "; search longer, or allow more"
    least = min(sizes)
    return f"; the smallest has {least / 1e6:.2f} MB of {variant.budget / 1e6:.2f} MB: allow more"


def _lock(manifest: Manifest, variant: str, reason: Mapping[str, Any], store: Any, offline: bool) -> None:
    from modelkit import durable, lock, locking  # noqa: PLC0415
    from modelkit.errors import ArtifactError, CheckError  # noqa: PLC0415

    path = lock.path_of(manifest.path)
    try:
        with progress_bars() as progress:
            fresh = locking.resolved(manifest, store, offline=offline, progress=progress, reasons={variant: reason})
    except (ArtifactError, CheckError) as error:
        # Another variant's trouble: this one has just been proven.
        click.echo(f"{path}: not written: {error}", err=True)
        return
    durable.put(path, lock.text(fresh).encode())
    click.echo(f"{path}: written, with the reason")


class _Best:
    """Tells of every recipe that is closer than all before it."""

    def __init__(self, name: str) -> None:
        self._name, self._error = name, float("inf")

    def hear(self, trial: Trial) -> None:
        if trial.error is not None and trial.error < self._error:
            self._error = trial.error
            told = f"{trial.error:.3g} from float32 in {trial.megabytes:.2f} MB"
            click.echo(f"{self._name}: recipe {trial.number}, best so far: {told}", err=True)


def _table(name: str, tuned: Tuned) -> str:
    from rich.table import Table  # noqa: PLC0415

    from modelkit.tuning.pareto import front, rank  # noqa: PLC0415

    title = f"{name}: recipes that no other of {len(tuned.trials)} beats in size, products and closeness"
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("recipe", "MB", "products", "distance", "what it is", ""):
        table.add_column(heading, justify="left" if heading in ("what it is", "") else "right", overflow="fold")
    best = front(tuned.trials)
    # One that was chosen after closer ones had failed a check may be beaten by those.
    others = [tuned.chosen] if tuned.chosen and tuned.chosen not in best else []
    for one in sorted([*best, *others], key=rank):
        table.add_row(*_row(one), "chosen" if one == tuned.chosen else "")
    return printed(table)


def _row(trial: Trial) -> Sequence[str]:
    from modelkit.tuning.written import lines  # noqa: PLC0415

    recipe = " ".join(line.strip() for line in lines(trial.recipe))
    return str(trial.number), f"{trial.megabytes:.2f}", f"{trial.products:.2f}", f"{trial.error:.3g}", recipe
