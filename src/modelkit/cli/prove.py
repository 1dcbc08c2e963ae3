"""`modelkit prove`: do the checks bite? Faults are put into copies of an artifact, and each must be noticed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelkit import conformance
from modelkit.check_modules import PROFILES
from modelkit.cli._selection import OFFLINE, PATHS, built, named, printed, progress_bars

if TYPE_CHECKING:
    from modelkit.proving import Proof


@click.command("prove")
@click.argument("name", metavar="NAME/VARIANT")
@PATHS
@click.option("--every", is_flag=True, help="Ask every check about every fault, and not only until one fails.")
@click.option("--fault", "faults", multiple=True, metavar="KIND", help="Only this fault; may be given again.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides where faults strike.")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default=PROFILES[0],
    show_default=True,
    help="Which checks are asked.",
)
@OFFLINE
def command(
    name: str, paths: tuple[Path, ...], *, every: bool, faults: tuple[str, ...], seed: int, profile: str, offline: bool
) -> None:
    """Damage copies of NAME/VARIANT in every known way; exit 1 if more than one fault in twenty goes unnoticed."""
    from modelkit import kinds, proving  # noqa: PLC0415
    from modelkit.errors import CONFORMING, NOT_CONFORMING  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    for fault in faults:
        kinds.load("faults", fault)  # a wrong name is told before anything is built
    manifest, variant = named(name, paths)
    store = Store()
    with progress_bars() as progress:
        build, artifact = built(manifest, variant, store, progress, offline=offline)
        examination = conformance.Examination(build, artifact, profile)
        with store.workspace("proving") as place:
            proof = proving.prove(examination, place, progress, seed=seed, every=every, only=faults)
    click.echo(_table(name, proof), nl=False)
    if every and (idle := proof.idle):
        click.echo(f"No fault was noticed by {', '.join(idle)}.")
    for fault in proof.placeless if faults else ():
        click.echo(f"{fault} has no place in {name}.")
    if proof.survivors:
        for check, why in proof.unasked.items():
            click.echo(f"{check} was not asked: {why}")
    verdict = proof.verdict()
    click.echo(f"{name}: {verdict.sentence}")
    sys.exit(CONFORMING if verdict.outcome == "passed" else NOT_CONFORMING)


def _table(name: str, proof: Proof) -> str:
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=f"{name}: faults, and who noticed", title_justify="left", title_style="bold")
    for heading in ("fault", "what was damaged", "noticed by"):
        table.add_column(heading, overflow="fold")
    for one in proof.tried:
        table.add_row(one.fault, one.told, ", ".join(one.noticed) or "SURVIVED")
    return printed(table)
