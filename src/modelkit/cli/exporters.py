"""`modelkit exporters`: what turns a source into a graph, and what each can take."""

from __future__ import annotations

from collections.abc import Callable

import click

from modelkit.cli._selection import progress_bars


@click.command("exporters")
@click.option("--make", type=click.Choice(["optimum"]), help="Make the environment of this exporter now.")
def command(make: str | None) -> None:
    """Show every exporter and what it takes; optimum needs an environment of its own, made on first use."""
    from modelkit import kinds  # noqa: PLC0415

    if make:
        _made()
        return
    for kind in kinds.names("exporters"):
        summary = (kinds.load("exporters", kind).__doc__ or "").splitlines()[0]
        click.echo(f"{kind}: {summary}")
        for line in DETAILS.get(kind, list)():
            click.echo(f"  {line}")


def _made() -> None:
    from modelkit.reference import environment  # noqa: PLC0415

    with progress_bars() as progress:
        environment.python(progress)
    click.echo("\n".join(_optimum()))


def _direct() -> list[str]:
    from modelkit import kinds  # noqa: PLC0415

    tasks = {kind: kinds.load("architectures", kind).PARTS for kind in kinds.names("architectures")}
    return [f"model_type {kind}: {', '.join(sorted(layouts))}" for kind, layouts in tasks.items()]


def _optimum() -> list[str]:
    from modelkit.reference import environment  # noqa: PLC0415

    place, found = environment.folder(), environment.find()
    pins = environment.pins()
    known = [f"{name} {pins[name]}" for name in ("optimum", "optimum-onnx", "transformers", "torch")]
    made = f"made, {environment.size(place) / 1e9:.1f} GB" if found else "not made yet; on first use, or with"
    return [
        f"any model_type that optimum exports: {', '.join(known)}",
        f"environment: {place}: {made}{'' if found else f' `{environment.MAKE}`'}",
    ]


DETAILS: dict[str, Callable[[], list[str]]] = {"direct": _direct, "optimum": _optimum}
