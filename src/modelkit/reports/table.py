"""The terminal table: model x variant, whether it conforms, its size, its worst margin, its checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelkit.graphs import model_files
from modelkit.reports.records import Record, by_variant


def render(records: Sequence[Record], width: int = 120, color: bool = False) -> str:
    """The table and, below it, where things are and what happened; ready to print."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="modelkit", title_justify="left", title_style="bold")
    for heading in ("model", "variant", "state", "model size", "worst margin", "checks"):
        table.add_column(heading, justify="right" if heading == "model size" else "left", overflow="fold")
    groups = by_variant(records)
    for (_, name, variant), group in groups.items():
        table.add_row(name, variant, _state(group), _size(group[-1]), _margin(group), _checks(group))
    console = Console(width=width, force_terminal=color, no_color=not color, highlight=False)
    with console.capture() as captured:
        console.print(table)
        for line in _notes(groups.values()):
            console.print(line, markup=False, soft_wrap=True)
    return captured.get()


def _state(group: Sequence[Record]) -> str:
    outcomes = {record["verdict"]["outcome"] for record in group}
    draft = " (draft)" if group[-1]["draft"] else ""
    if "failed" in outcomes:
        return f"[red]not conforming[/red]{draft}"
    if "errored" in outcomes:
        return f"[red]could not run[/red]{draft}"
    if outcomes <= {"skipped"}:
        return "draft" if draft else "not checked"
    if left := len(set(group[-1]["keys"]) - {record["verdict"]["check"] for record in group}):
        return f"{left} of {len(group[-1]['keys'])} checks not run{draft}"
    known = " but for known failures" if "excused" in outcomes else ""
    return f"[green]conforming[/green]{known}{draft}"


def _size(record: Record) -> str:
    if record["artifact"] is None:
        return "-"
    files = record["artifact"]["files"]
    return f"{sum(files[name]['size'] for name in model_files(files)) / 1e6:.2f} MB"


def _margin(group: Sequence[Record]) -> str:
    # A failed check without a margin gave no number to measure one from: worse than any.
    if broken := [one["verdict"]["check"] for one in group if _is_beyond_measure(one["verdict"])]:
        return f"broken {broken[0]}"
    margins = [(v["margin"], v["check"]) for v in (record["verdict"] for record in group) if v["margin"] is not None]
    if not margins:
        return "-"
    margin, check = min(margins)
    # Neither "-0.0%" of one just missed nor ten digits of one missed by far would tell how far.
    percent = f"{margin:+.1%}" if 0.0005 <= abs(margin) < 100 or margin == 0 else f"{100 * margin:+.1g}%"
    return f"{percent} {check}"


def _is_beyond_measure(verdict: Mapping[str, Any]) -> bool:
    return verdict["outcome"] == "failed" and verdict["margin"] is None


def _checks(group: Sequence[Record]) -> str:
    """How many passed or were skipped, and the names of all others: twenty names would hide the one that failed."""
    names: dict[str, list[str]] = {}
    for record in group:
        names.setdefault(record["verdict"]["outcome"], []).append(record["verdict"]["check"])
    counted = [f"{len(names.pop(outcome))} {outcome}" for outcome in ("passed", "skipped") if outcome in names]
    return "; ".join([*(f"{outcome}: {', '.join(checks)}" for outcome, checks in names.items()), *counted])


def _notes(groups: Iterable[Sequence[Record]]) -> list[str]:
    groups = list(groups)
    told = [line for group in groups for record in group for line in record["told"]]
    folders = [group[-1]["folder"] for group in groups if group[-1]["folder"] and group[-1]["artifact"]]
    lines = [*dict.fromkeys(told), *(f"finished: {folder}" for folder in dict.fromkeys(folders))]
    if folders and not told and all(_is_warm(record) for group in groups for record in group):
        lines.append("warm: nothing downloaded, nothing rebuilt, every verdict on record for exactly these bytes")
    return lines


def _is_warm(record: dict[str, Any]) -> bool:
    artifact = record["artifact"]
    # A check without anything to judge, such as a budget nobody declared, leaves nothing to record.
    recorded = record["verdict"]["reused"] or record["verdict"]["outcome"] == "skipped"
    return artifact is not None and artifact["reused"] and recorded
