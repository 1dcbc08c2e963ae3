"""Figures of a page as pictures: the same figures give the same file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path


def scatter(points: Mapping[str, tuple[float, float, float]], emphasized: Collection[str], file: Path) -> None:
    """Name -> (MB, 1 - cosine, times the speed of float32), left and low is better; `emphasized` as stars."""
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    fastest = max(speed for *_, speed in points.values())
    for stars in (False, True):
        chosen = {name: point for name, point in points.items() if (name in emphasized) is stars}
        drawn = axes.scatter(
            *([point[axis] for point in chosen.values()] for axis in (0, 1)),
            c=[speed for *_, speed in chosen.values()], vmin=0, vmax=fastest, cmap="viridis",
            marker="*" if stars else "o", s=260 if stars else 60, zorder=3 if stars else 2,
        )  # fmt: skip
    for name, (size, error, speed) in points.items():
        # Names at the right edge stand to the left of their point, where there is room.
        side = -8 if size > 20 else 8
        axes.annotate(
            f"{name} ({speed:.1f}x)", (size, error), xytext=(side, 4), textcoords="offset points",
            ha="right" if side < 0 else "left", fontsize=8,
        )  # fmt: skip
    axes.set(xlabel="size in MB", ylabel="1 - cosine to float32, mean over the corpus", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.2)
    figure.colorbar(drawn, label="times the speed of float32, one thread, batch 1")
    with rc_context({"svg.hashsalt": "modelkit"}):
        figure.savefig(file, metadata={"Date": None})
