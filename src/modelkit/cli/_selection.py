"""What several commands share: arguments, the variants that these select, building one of them, and printing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from modelkit.lock import Lock
    from modelkit.pipeline import Build
    from modelkit.store import Store
    from modelkit.vocabulary import Artifact, Manifest, Progress, Variant


@dataclass(frozen=True)
class Selection:
    """What the shared arguments say."""

    paths: tuple[Path, ...]
    channels: frozenset[str]
    variants: frozenset[str]
    models: frozenset[str]
    offline: bool
    drafts: bool
    out: Path


def selects(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared arguments to a command; it gets them as one `selection`."""

    def gathered(**given: Any) -> Any:
        shared = {
            "paths": given.pop("paths"),
            "channels": frozenset(name for name in ("dev", "prod") if given.pop(name)),
            "variants": frozenset({*given.pop("variant"), *(v for v in ("int8", "int4") if given.pop(v))}),
            "models": frozenset(given.pop("only")),
            **{name: given.pop(name) for name in ("offline", "drafts", "out")},
        }
        return function(Selection(**shared), **given)

    gathered.__doc__ = function.__doc__
    for option in (
        click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build"),
                     show_default=True, help="Where finished folders go."),
        click.option("--offline", is_flag=True, help="Never use the network; fail if it is needed."),
        click.option("--drafts", is_flag=True, help="Take manifests that have no lock, too."),
        click.option("--only", multiple=True, metavar="NAME", help="Only this model; may be given again."),
        click.option("--variant", multiple=True, metavar="V", help="Only this variant; may be given again."),
        click.option("--int8", is_flag=True, help="The variant int8."),
        click.option("--int4", is_flag=True, help="The variant int4."),
        click.option("--dev", is_flag=True, help="The channel dev."),
        click.option("--prod", is_flag=True, help="The channel prod."),
        PATHS,
    ):  # fmt: skip
        gathered = option(gathered)
    return gathered


PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATHS]...")
OFFLINE = click.option("--offline", is_flag=True, help="Never use the network for the weights; fail if it is needed.")


def manifests(paths: tuple[Path, ...]) -> list[Manifest]:
    """Every manifest below `paths` (default: manifests/). All mistakes of all files at once, as `ManifestError`."""
    from modelkit import conformance, delivery, manifest  # noqa: PLC0415
    from modelkit.errors import ManifestError  # noqa: PLC0415

    loaded: list[Manifest] = []
    mistakes: list[str] = []
    for path in manifest.find(paths or (Path("manifests"),)):
        try:
            one = manifest.load(path)
            conformance.plan(one)  # of some mistakes only that knows
            loaded.append(one)
        except ManifestError as error:
            mistakes.extend(error.mistakes)
    if mistakes:
        raise ManifestError("mistakes in manifests", mistakes=tuple(mistakes))
    owners: dict[Path, Manifest] = {}
    for one in loaded:
        delivery.insist_on_own_folders(one, owners)
    if not loaded:
        raise ManifestError(f"no manifest in {', '.join(map(str, paths)) or 'manifests'}", hint="write a *.yaml there")
    return loaded


def named(name: str, paths: tuple[Path, ...]) -> tuple[Manifest, Variant]:
    """The one variant that `name` (`minilm-l6/int8`) means. Raises `ManifestError` when there is none."""
    from modelkit.errors import ManifestError  # noqa: PLC0415
    from modelkit.kinds import did_you_mean  # noqa: PLC0415

    known = {f"{m.name}/{v.name}": (m, v) for m in manifests(paths) for v in m.variants.values()}
    if name not in known:
        raise ManifestError(f"no {name} in these manifests{did_you_mean(name, known)}")
    return known[name]


def select(selection: Selection) -> list[tuple[Manifest, Variant]]:
    """The variants to work on. Raises `ManifestError` when a name selects nothing."""
    from modelkit.errors import ManifestError  # noqa: PLC0415

    loaded = manifests(selection.paths)
    _insist("model", selection.models, {manifest.name for manifest in loaded})
    pairs = [(m, v) for m in loaded for v in m.variants.values() if not selection.models or m.name in selection.models]
    _insist("variant", selection.variants, {variant.name for _, variant in pairs})
    _insist("channel", selection.channels, {variant.channel for _, variant in pairs})
    chosen = [
        (manifest, variant)
        for manifest, variant in pairs
        if (not selection.variants or variant.name in selection.variants)
        and (not selection.channels or variant.channel in selection.channels)
    ]
    if not chosen:
        wanted = f"{', '.join(sorted(selection.variants))} in the channel {', '.join(sorted(selection.channels))}"
        raise ManifestError(f"no variant is {wanted}", hint="leave one of the two out")
    return chosen


def _insist(what: str, wanted: frozenset[str], known: set[str]) -> None:
    from modelkit.errors import ManifestError  # noqa: PLC0415
    from modelkit.kinds import did_you_mean  # noqa: PLC0415

    for name in sorted(wanted - known):
        raise ManifestError(f"no {what} '{name}' in these manifests{did_you_mean(name, known)}")


def prepared(
    pairs: list[tuple[Manifest, Variant]], selection: Selection, store: Store, progress: Progress, *, force: bool
) -> Iterator[tuple[Manifest, Variant, Lock | None, Callable[[], Build]]]:
    """Each pair with its lock and what prepares its build. Drafts are told and left out, unless they are asked for.

    Raises `ManifestError` when nothing is left.
    """
    from modelkit import lock, pipeline  # noqa: PLC0415
    from modelkit.errors import ManifestError  # noqa: PLC0415
    from modelkit.vocabulary import Fetching  # noqa: PLC0415

    found = [(manifest, variant, lock.read(manifest.path)) for manifest, variant in pairs]
    for path in dict.fromkeys(manifest.path for manifest, _, locked in found if locked is None):
        if not selection.drafts:
            click.echo(
                f"{path}: draft, left out; pin it with `modelkit lock {path}`, or take it with --drafts", err=True
            )
    wanted = [one for one in found if one[2] is not None or selection.drafts]
    if not wanted:
        raise ManifestError("nothing to do: every selected manifest is a draft", hint="see above")
    pins = pipeline.Pins(store)
    for manifest, variant, locked in wanted:
        context = Fetching(manifest.path.parent, selection.offline, progress)
        yield manifest, variant, locked, partial(pins.prepare, manifest, variant, locked, context, force=force)


def built(
    manifest: Manifest, variant: Variant, store: Store, progress: Progress, *, offline: bool
) -> tuple[Build, Artifact]:
    """A variant, which may be a draft's, and its finished folder in the store."""
    from modelkit import lock, pipeline  # noqa: PLC0415

    build = pinned(manifest, variant, store, progress, offline=offline)
    return build, pipeline.build(build, lock.read(manifest.path))


def pinned(manifest: Manifest, variant: Variant, store: Store, progress: Progress, *, offline: bool) -> Build:
    """The build of a variant, which may be a draft's."""
    from modelkit import lock, pipeline  # noqa: PLC0415
    from modelkit.vocabulary import Fetching  # noqa: PLC0415

    context = Fetching(manifest.path.parent, offline, progress)
    return pipeline.Pins(store).prepare(manifest, variant, lock.read(manifest.path), context)


def printed(table: Table) -> str:
    """The text of a table, in 120 columns and without colours."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(width=120, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress bars on a terminal's standard error; nothing elsewhere."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show
