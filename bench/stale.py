"""Stale hits: after each of many single changes, is everything made anew that has to be?

A small seeded model is built and checked once. Each change gets its own copy of that project and its store, and a fresh
process builds and checks again. `made` says what may not be reused then; on top, the artifact must have the bytes that
an empty store gives. Whatever is reused wrongly is a stale hit; whatever is made without need is told as well.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from bench.processes import HERE, WORK, python
from bench.report import against, table, tell
from bench.stale_changes import CHANGES, Change

ROOM = WORK / "stale"
LETTERS = {"downloaded": "D", "converted": "C", "quantized": "Q", "finalized": "F"}


def main() -> None:
    """Print the section."""
    shutil.rmtree(ROOM, ignore_errors=True)
    base = _project(ROOM / "base")
    place = ROOM / "project"
    shutil.copytree(base, place)
    first = _build(place, base / "store", ())
    found = [_after(change, base, place, first) for change in CHANGES]
    stale = [(change.what, wrong) for change, (wrong, _) in zip(CHANGES, found, strict=True) if wrong]
    needless = [(change.what, more) for change, (_, more) in zip(CHANGES, found, strict=True) if more]
    effective = sum(bool(change.int8 or change.int4) for change in CHANGES)
    print(f"""## Stale hits

{len(CHANGES)} single changes to a seeded two-layer BERT with two variants and a check of its own;
{effective} of them have to be noticed, {len(CHANGES) - effective} must change nothing.
Stale hits: {len(stale)} of {len(CHANGES)}.
Changes after which something was made again without need: {len(needless)} of {len(CHANGES)}.
""")
    rows = [("**stale**", *line) for line in stale] + [("needless", *line) for line in needless]
    if rows:
        print(table(("", "change", "what"), rows))
    print(table(
        ("change", "has to be made again, int8", "int4"), [(c.what, c.int8 or "-", c.int4 or "-") for c in CHANGES]
    ))  # fmt: skip
    print(
        "D downloaded, C converted, Q quantized, F finalized, V every verdict, or the check whose verdict it is.\n"
        "Not tried: an edit of modelkit's own stages without a new VERSION, which no key would notice.\n"
    )
    print(against([
        ("single changes tried", len(CHANGES), "{}", ">=", 20), ("stale hits", len(stale), "{}", "<=", 0)
    ]))  # fmt: skip


def _project(folder: Path) -> Path:
    sys.path.insert(0, str(HERE / "tests"))
    import stand_ins  # noqa: PLC0415

    stand_ins.project(folder)
    stand_ins.bert(folder / "weights", vocab_size=1024)  # a table large enough to be quantized
    checks = folder / "conformance" / "checks"
    checks.mkdir()
    budget = (HERE / "src" / "modelkit" / "checks" / "budget.py").read_text("utf-8")
    (checks / "own.py").write_text(budget.replace('Verdict("budget"', 'Verdict("own"'), "utf-8")
    return folder


def _build(project: Path, store: Path, arguments: tuple[str, ...]) -> dict[str, Any]:
    ran = python("-m", "bench.stale_child", project / "tiny.yaml", *arguments, MODELKIT_STORE=str(store))
    return dict(json.loads(ran.output.splitlines()[-1]))


def _after(change: Change, base: Path, place: Path, first: dict[str, Any]) -> tuple[str, str]:
    """What was reused wrongly, and what was made without need; empty when nothing."""
    shutil.rmtree(place, ignore_errors=True)
    project = place.with_name("elsewhere") if change.elsewhere else place
    shutil.copytree(base, project)
    change.apply(project)
    new = _build(project, project / "store", change.arguments)
    clean = _build(project, project / "empty", change.arguments)
    shutil.rmtree(project)
    wrong: list[str] = []
    more: list[str] = []
    for variant, wanted in (("int8", change.int8), ("int4", change.int4)):
        must, made = _parts(wanted, new[variant]), _made(first[variant], new[variant])
        wrong += [f"{variant}: {part} reused" for part in sorted(must - made)]
        more += [f"{variant}: {part}" for part in _shortly(made - must, new[variant])]
        if new[variant]["digest"] != clean[variant]["digest"]:
            wrong.append(f"{variant}: not the bytes of an empty store")
        reused = [check for check, was in new[variant]["reused"].items() if was]
        if differing := [c for c in reused if new[variant]["said"][c] != clean[variant]["said"][c]]:
            wrong.append(f"{variant}: another verdict than in an empty store: {', '.join(differing)}")
    tell(f"  {change.what}: {'; '.join(wrong) or 'as it must be'}{' (' + '; '.join(more) + ')' if more else ''}")
    return "; ".join(wrong), "; ".join(more)


def _parts(wanted: str, new: dict[str, Any]) -> set[str]:
    """`CQF V` -> stages and checks; `F parity` -> the stage and that one check."""
    parts: set[str] = set()
    for word in wanted.split():
        if word == "V":
            parts |= set(new["reused"])
        elif word.isupper():
            parts |= {stage for stage, letter in LETTERS.items() if letter in word}
        else:
            parts.add(word)
    return parts


def _shortly(parts: set[str], new: dict[str, Any]) -> list[str]:
    checks = parts & set(new["reused"])
    if len(checks) < 3:
        return sorted(parts)
    left_out = len(new["reused"]) - len(checks)
    return [*sorted(parts - checks), f"{len(checks)} verdicts" if left_out else "every verdict"]


def _made(first: dict[str, Any], new: dict[str, Any]) -> set[str]:
    stages = {name for name, key in new["stages"].items() if first["stages"][name] != key}
    return stages | {check for check, reused in new["reused"].items() if not reused}


if __name__ == "__main__":
    main()
