"""JSON evidence: one file per artifact with every verdict on exactly its bytes."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelkit import runtime
from modelkit.conformance import TOOLS
from modelkit.errors import StageError
from modelkit.reports.records import Record, by_variant
from modelkit.stages.job import tool

FORMAT = 1


def write(records: Iterable[Record], root: Path) -> list[Path]:
    """Write `<root>/<channel>/out/Evidence/<model>-<variant>.json` for every artifact that was checked.

    Verdicts of an earlier run on the same bytes stay unless this run gave the check again. Raises `StageError` when
    the folder cannot be written.
    """
    written = []
    for group in by_variant(records).values():
        if group[-1]["artifact"] is not None:
            written.append(_write_one(group, root))
    return written


def _write_one(group: Sequence[Record], root: Path) -> Path:
    last = group[-1]
    path: Path = root / last["channel"] / "out" / "Evidence" / f"{last['model']}-{last['variant']}.json"
    verdicts = {**_earlier(path, last["artifact"]["digest"]), **{r["verdict"]["check"]: r["verdict"] for r in group}}
    evidence = {
        "format": FORMAT,
        "model": last["model"],
        "variant": last["variant"],
        "manifest": last["manifest"],
        "artifact": {key: value for key, value in last["artifact"].items() if key != "reused"},
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": {
            "python": platform.python_version(),
            "processor": runtime.cpu(),
            "tools": {name: tool(name) for name in TOOLS},
        },
        "verdicts": [verdicts[check] for check in sorted(verdicts)],
    }
    _replace(path, json.dumps(evidence, indent=2, ensure_ascii=False) + "\n")
    return path


def _earlier(path: Path, digest: str) -> dict[str, Any]:
    try:
        evidence = json.loads(path.read_text(encoding="utf-8"))
        same = evidence["format"] == FORMAT and evidence["artifact"]["digest"] == digest
        return {verdict["check"]: verdict for verdict in evidence["verdicts"]} if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # none yet, or not ours: it is written anew


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StageError(f"cannot be written ({error.strerror})", where=path, hint="free some space") from error
