"""One verdict with all that is needed to report it, as JSON built-ins: it crosses processes and ends in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelkit.conformance import PROFILES, PROOF
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
        "again": again(f"{manifest.path.as_posix()}::{variant.name}::{verdict.check}", profile, examples),
        "verdict": {**asdict(verdict), "worst": list(verdict.worst)},
    }


def again(node: str, profile: str, examples: int | None = None) -> str:
    """The command that takes this one verdict again; `node` is pytest's id of it."""
    options = "" if profile == PROFILES[0] else f" --modelkit-profile {profile}"
    options += " --modelkit-prove" if node.endswith(f"::{PROOF}") else ""
    return f"pytest --modelkit '{node}'{options}{f' --modelkit-examples {examples}' if examples else ''}"


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
