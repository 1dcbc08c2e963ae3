"""The recipes that no other one beats in size, products and closeness at once: as a list, and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.errors import StageError
from modelkit.tuning.search import NEEDS, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def front(trials: Iterable[Trial]) -> list[Trial]:
    """Those that were built and that none dominates, the closest first."""
    built = sorted((one for one in trials if one.error is not None), key=rank)
    kept: list[Trial] = []
    for one in built:
        # Nothing behind it is closer, so only what stands before can dominate.
        if not any(other.megabytes <= one.megabytes and other.products <= one.products for other in kept):
            kept.append(one)
    return kept


def rank(trial: Trial) -> tuple[float, float, float, int]:
    """Orders what was built: the closest first, of equally close ones the smallest, then the first."""
    return trial.error or 0.0, trial.megabytes, trial.products, trial.number


def draw(trials: Sequence[Trial], chosen: Trial | None, budget: int | None, file: Path) -> None:
    """A scatter of all built recipes, with the front and the budget; the ending of `file` decides the format.

    Raises `StageError` when matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise StageError("a picture needs matplotlib, which is not installed", hint=NEEDS) from error

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(*_points(trials), color="0.7", label="tried")
    axes.scatter(*_points(front(trials)), color="tab:blue", label="not dominated")
    if chosen is not None:
        axes.scatter(*_points([chosen]), marker="*", s=200, color="tab:red", label="chosen", zorder=3)
    if budget is not None:
        axes.axvline(budget / 1e6, color="0.4", linestyle="--", label="budget")
    axes.set(xlabel="size in MB", ylabel="1 - cosine to float32, mean over held-out texts", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    _save(figure, file)


def _points(trials: Iterable[Trial]) -> tuple[list[float], list[float]]:
    """MB and errors of what was built."""
    pairs = [(one.megabytes, one.error) for one in trials if one.error is not None]
    return [size for size, _ in pairs], [error for _, error in pairs]


def _save(figure: Figure, file: Path) -> None:
    from matplotlib import rc_context  # noqa: PLC0415

    try:
        # Neither the day nor names drawn by lot: the same recipes give the same file.
        with rc_context({"svg.hashsalt": "modelkit"}):
            figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise StageError(f"cannot be written ({error})", where=file, hint="name a .png or .svg file") from error
