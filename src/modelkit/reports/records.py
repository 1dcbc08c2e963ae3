"""One verdict with all that is needed to report it, as JSON built-ins: it crosses processes and ends in files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelkit.check_modules import PROFILES
from modelkit.conformance import PROOF
from modelkit.vocabulary import Artifact, Manifest, Variant, Verdict

Record = dict[str, Any]


def record(
    manifest: Manifest,
    variant: Variant,
    verdict: Verdict,
    artifact: Artifact | None = None,
    folder: Path | None = None,
    told: Iterable[str] = (),
    draft: bool = False,
    keys: Mapping[str, str] | None = None,
    standing: Mapping[str, Sequence[str]] | None = None,
    profile: str = PROFILES[0],
    examples: int | None = None,
) -> Record:
    """`artifact`, `folder`, `keys` (of every planned check) and `standing` (`Examination.standing`) are None when there
    was nothing to check."""
    return {
        "manifest": manifest.path.as_posix(),
        "model": manifest.name,
        "variant": variant.name,
        "channel": variant.channel,
        "draft": draft,
        "folder": folder.as_posix() if folder else None,
        "told": list(told),
        "artifact": _artifact(artifact) if artifact else None,
        "keys": dict(keys or {}),
        "standing": {check: list(known) for check, known in (standing or {}).items()},
        "profile": profile,
        "again": again(manifest, variant, verdict.check, profile, examples, draft=draft),
        "verdict": {**asdict(verdict), "worst": list(verdict.worst)},
    }


def again(
    manifest: Manifest, variant: Variant, check: str, profile: str, examples: int | None = None, *, draft: bool
) -> str:
    """The command that takes this one verdict again, for a POSIX shell in the folder that the path is relative to."""
    words = ["pytest", "--modelkit", f"{manifest.path.as_posix()}::{variant.name}::{check}"]
    words += ["--modelkit-drafts"] if draft else []
    words += [] if profile == PROFILES[0] else ["--modelkit-profile", profile]
    words += ["--modelkit-prove"] if check == PROOF else []
    words += ["--modelkit-examples", str(examples)] if examples else []
    return shlex.join(words)


def details(worst: Iterable[Mapping[str, Any]], command: str) -> list[str]:
    """Below the sentence of a verdict that failed: its worst cases, and the command that takes it again."""
    return [*(f"  {json.dumps(case, ensure_ascii=False)}" for case in worst), f"  again: {command}"]


def _artifact(artifact: Artifact) -> Record:
    return {
        "digest": artifact.digest,
        "reused": artifact.reused,
        "size": artifact.size,
        "files": {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in artifact.files.items()},
        "chain": [{"stage": stage.name, "key": stage.key} for stage in artifact.chain],
    }


def by_variant(records: Iterable[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Records grouped by manifest, model and variant, in the order they came."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for one in records:
        groups.setdefault((one["manifest"], one["model"], one["variant"]), []).append(one)
    return groups
