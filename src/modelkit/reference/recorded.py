"""Golden outputs: what the original implementation made of a few texts, in a file beside the corpora."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from modelkit import kinds
from modelkit.errors import CheckError
from modelkit.vocabulary import FileDigest, Manifest

FORMAT = 1
ROWS = 12
WHOLE_BELOW = 2048
"""Rows shorter than this are kept whole; of longer ones the largest, and some of the others."""
LARGEST, SPREAD = 32, 32


def path_of(manifest: Manifest) -> Path:
    """Where the golden of `manifest` is, or would be: `conformance/golden/NAME.json` in its project, else
    `NAME.golden.json` beside it."""
    if project := kinds.project_of(manifest.path):
        return project / "conformance" / "golden" / f"{manifest.name}.json"
    # Not in a `conformance/` of its own: that would make the manifest's folder a project, and hide one that is made
    # further up later, with its checks and its corpora.
    return manifest.path.parent / f"{manifest.name}.golden.json"


def select(corpus: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """About twelve rows, in corpus order: from every group in turn its shortest row, its longest, the one between."""
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in sorted(corpus, key=lambda row: (len(row["text"]), row["id"])):
        groups.setdefault(row["group"], []).append(row)
    wanted = max(ROWS, len(groups))
    chosen: dict[str, None] = {}
    for pick in (0, -1, None):
        for group in sorted(groups):
            rows = groups[group]
            if len(chosen) < wanted:
                chosen[rows[len(rows) // 2 if pick is None else pick]["id"]] = None
    return [row for row in corpus if row["id"] in chosen]


def text(
    manifest: Manifest,
    files: Mapping[str, FileDigest],
    rows: Sequence[Mapping[str, str]],
    outputs: Sequence[Sequence[float]],
    versions: Mapping[str, str],
) -> str:
    """The file's content. The same outputs give the same text."""
    logits = "logits" in kinds.load("tasks", manifest.task.kind).GIVES
    fields = {
        "format": FORMAT,
        "task": manifest.task.kind,
        "options": plain(manifest.task.options),
        "source": {name: entry.sha256 for name, entry in sorted(files.items())},
        "versions": dict(sorted(versions.items())),
        "rows": [{**row, **_kept(output, logits=logits)} for row, output in zip(rows, outputs, strict=True)],
    }
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def plain(options: Any) -> dict[str, Any]:
    """Options as JSON has them."""
    from dataclasses import asdict  # noqa: PLC0415

    fields: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return fields


def options(golden: Mapping[str, Any]) -> Any:
    """The task's options it was recorded with; one that the task has learnt since then has its default. None when the
    task no longer knows them."""
    from pydantic import ValidationError  # noqa: PLC0415

    from modelkit.validation import adapter  # noqa: PLC0415

    try:
        return adapter(kinds.load("tasks", golden["task"]).Options).validate_json(json.dumps(golden["options"]))
    except ValidationError:
        return None


def read(manifest: Manifest) -> dict[str, Any] | None:
    """The golden of `manifest`, with each row's `values` (float32) and `places` (int64, where in the row they stand).

    A row of logits that is not whole has a `rest`: what all others weigh in the softmax together, the logarithm of the
    sum of their exponentials; None in older recordings. There may be no golden: None. Raises `CheckError` when the file
    is damaged.
    """
    path = path_of(manifest)
    if not path.is_file():
        return None
    hint = f"delete {path.name}, or record it again with `modelkit golden`"
    try:
        golden: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _insist(golden["format"] == FORMAT, f"it has format {golden['format']}, this modelkit reads {FORMAT}")
        for name, kind in (("task", str), ("options", dict), ("source", dict), ("rows", list)):
            _insist(isinstance(golden[name], kind) and bool(golden[name]), f"{name} is empty or no {kind.__name__}")
        for row in golden["rows"]:
            _decode(row)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise CheckError(f"is no golden ({reason})", where=path, hint=hint) from error
    return golden


def _insist(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def _decode(row: dict[str, Any]) -> None:
    import numpy as np  # noqa: PLC0415

    values = np.frombuffer(base64.b64decode(row["values"], validate=True), "<f4")
    places = np.asarray(row.get("places", range(row["width"])), np.int64)
    _insist(isinstance(row["text"], str) and isinstance(row["id"], str), "a row has no id or no text")
    _insist(len(values) > 0 and values.shape == places.shape, f"row {row['id']} has too many or too few values")
    _insist(bool(np.isfinite(values).all()), f"row {row['id']} has values that are not finite")
    _insist(places.min() >= 0 and places.max() < row["width"], f"row {row['id']} has values outside its width")
    rest = row.setdefault("rest", None)
    _insist(rest is None or (isinstance(rest, float) and isfinite(rest)), f"row {row['id']}: its rest is no number")
    _insist(rest is None or len(values) < row["width"], f"row {row['id']} is whole and has a rest")
    row["values"], row["places"] = values, places


def without(output: Any, places: Any) -> float:
    """The logarithm of the sum of the exponentials of all of `output`, float[width], but those at `places`."""
    import numpy as np  # noqa: PLC0415

    others = np.delete(np.asarray(output, np.float64), places)
    return float(others.max() + np.log(np.exp(others - others.max()).sum()))


def _kept(output: Sequence[float], *, logits: bool) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415

    values = np.asarray(output, "<f4")
    kept: dict[str, Any] = {"width": len(values)}
    if len(values) >= WHOLE_BELOW:
        largest = np.argsort(-values, kind="stable")[:LARGEST]
        spread = np.linspace(0, len(values) - 1, SPREAD).astype(np.int64)
        places = np.unique(np.concatenate([largest, spread]))
        if logits:
            kept["rest"] = without(values, places)
        kept["places"], values = places.tolist(), values[places]
    return {**kept, "values": base64.b64encode(values.tobytes()).decode("ascii")}
