"""JSON evidence: one file per artifact with every verdict on exactly its bytes."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelkit import durable, runtime
from modelkit.conformance import TOOLS
from modelkit.reports.records import Record, by_variant
from modelkit.stages.job import tool

FORMAT = 1
Entry = dict[str, Any]
Standing = Mapping[str, Sequence[str]]


def write(records: Iterable[Record], root: Path) -> list[Path]:
    """Write `<root>/<channel>/out/Evidence/<model>-<variant>.json` for every artifact that was checked.

    Verdicts of an earlier run stay where bytes, check, limits, tools and processor are the same, whatever profile they
    were taken in; a pass with fewer examples does not take the place of one with more.
    Raises `StageError` when the folder cannot be written.
    """
    written = []
    for group in by_variant(records).values():
        if group[-1]["artifact"] is not None:
            written.append(_write_one(group, root))
    return written


def _write_one(group: Sequence[Record], root: Path) -> Path:
    last = group[-1]
    path = _path(root, last["channel"], last["model"], last["variant"])
    now = {one["verdict"]["check"]: _entry(one) for one in group}
    verdicts = _merged(_earlier(path, last["artifact"]["digest"], last["standing"]), now, last["standing"])
    evidence = {
        "format": FORMAT,
        "model": last["model"],
        "variant": last["variant"],
        "manifest": last["manifest"],
        "draft": last["draft"],
        "artifact": {key: value for key, value in last["artifact"].items() if key != "reused"},
        "verdicts": [verdicts[check] for check in sorted(verdicts)],
    }
    content = (json.dumps(evidence, indent=2, ensure_ascii=False) + "\n").encode()
    durable.put(path, content)
    return path


def holds(root: Path, channel: str, model: str, variant: str, check: str) -> bool:
    """Whether an earlier run left a verdict of `check`, good or not."""
    try:
        verdicts = json.loads(_path(root, channel, model, variant).read_text(encoding="utf-8"))["verdicts"]
        return any(one["check"] == check for one in verdicts)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # none yet, or not ours


def _path(root: Path, channel: str, model: str, variant: str) -> Path:
    return root / channel / "out" / "Evidence" / f"{model}-{variant}.json"


def _entry(record: Record) -> Entry:
    """A verdict with when and where it was taken, and the key of all that it depends on."""
    return {
        **record["verdict"],
        "again": record["again"],
        "key": record["keys"].get(record["verdict"]["check"]),
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": {
            "python": platform.python_version(),
            "processor": runtime.cpu(),
            # As onnxruntime counts them: 0 is its own choice, one for each core. A check that sets it says so.
            "intra_op_num_threads": 0,
            "tools": {name: tool(name) for name in TOOLS},
        },
    }


def _merged(earlier: Mapping[str, Entry], now: Mapping[str, Entry], standing: Standing) -> dict[str, Entry]:
    def stands(check: str) -> bool:
        """Whether the earlier verdict of `check` says more than the one of now."""
        if now[check]["outcome"] != "passed" or now[check]["key"] not in standing.get(check, ()):
            return False
        return standing[check].index(earlier[check]["key"]) > standing[check].index(now[check]["key"])

    return {**earlier, **now, **{check: earlier[check] for check in earlier if check in now and stands(check)}}


def _earlier(path: Path, digest: str, standing: Standing) -> dict[str, Entry]:
    """What an earlier run found of the same bytes, as far as that run would find the same today."""
    try:
        evidence = json.loads(path.read_text(encoding="utf-8"))
        if evidence["format"] != FORMAT or evidence["artifact"]["digest"] != digest:
            return {}
        return {one["check"]: one for one in evidence["verdicts"] if one["key"] in standing.get(one["check"], ())}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # none yet, or not ours: it is written anew
