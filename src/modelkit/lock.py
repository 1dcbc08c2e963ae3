"""What a manifest resolved to, in a file beside it: `x.yaml` has `x.lock`. A manifest without one is a draft."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelkit.digests import difference
from modelkit.errors import ManifestError
from modelkit.vocabulary import Choice, FileDigest, Manifest

FORMAT = 1


@dataclass(frozen=True)
class Lock:
    """The pinned inputs, the recipe, the tools, and what came out."""

    source: Mapping[str, FileDigest]
    """Every source file that goes into the build."""
    identity: str
    """What the source resolved to when it was locked: a full commit, `name==version`, a path or a URL."""
    recipe: Mapping[str, Any]
    """The parts of the manifest that the bytes depend on."""
    tools: Mapping[str, str]
    artifacts: Mapping[str, Mapping[str, FileDigest]] = field(default_factory=dict)
    """Variant -> finished file -> digest."""
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Variant -> check -> the figures found when it was locked."""
    processor: Mapping[str, Any] = field(default_factory=dict)
    """On what they were found: figures of processors with other features do not compare."""
    reasons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Variant -> why it has its recipe, where `modelkit tune` found it: what was searched, and the front."""


def path_of(manifest: Path) -> Path:
    """Where the lock of `manifest` is, or would be."""
    return manifest.with_suffix(".lock")


def read(manifest: Path) -> Lock | None:
    """The lock beside `manifest`; None when there is none. Raises `ManifestError` when it cannot be read."""
    path = path_of(manifest)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"cannot be read ({error.strerror})", where=path) from error
    found = _parsed(path, content, f"run `modelkit lock {manifest}`")
    return Lock(
        found.source.files,
        found.source.identity,
        found.recipe,
        found.tools,
        found.artifacts,
        found.measured,
        found.processor,
        found.reasons,
    )


@dataclass(frozen=True)
class _SourceKeys:
    identity: str
    files: dict[str, FileDigest]


@dataclass(frozen=True)
class _Keys:
    """The file's own shape."""

    format: int
    source: _SourceKeys
    recipe: dict[str, Any]
    tools: dict[str, str]
    artifacts: dict[str, dict[str, FileDigest]]
    measured: dict[str, dict[str, Any]]
    processor: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, dict[str, Any]] = field(default_factory=dict)


def _parsed(path: Path, content: bytes, hint: str) -> _Keys:
    from pydantic import ValidationError  # noqa: PLC0415

    from modelkit.validation import adapter  # noqa: PLC0415

    try:
        # Python reads NaN, which is no JSON and equal to nothing.
        fields = json.loads(content, parse_constant=_refuse_constant)
        keys: _Keys = adapter(_Keys).validate_json(json.dumps(fields))
        if keys.format != FORMAT:
            raise ManifestError(f"has format {keys.format}, this modelkit reads {FORMAT}", where=path, hint=hint)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ManifestError(f"is no lock ({reason})", where=path, hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"is no lock ({error})", where=path, hint=hint) from error
    return keys


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_if_sound(manifest: Path) -> Lock | None:
    """The lock beside `manifest` for one who is about to write it anew: a damaged one counts as none."""
    try:
        return read(manifest)
    except ManifestError:
        return None


def text(lock: Lock) -> str:
    """The file's content: sorted, so that a change is a readable diff."""
    fields = {
        "format": FORMAT,
        "source": {"identity": lock.identity, "files": _plain(lock.source)},
        "recipe": lock.recipe,
        "tools": lock.tools,
        "artifacts": {name: _plain(files) for name, files in lock.artifacts.items()},
        "measured": lock.measured,
        "processor": lock.processor,
        **({"reasons": lock.reasons} if lock.reasons else {}),
    }
    return json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def recipe(manifest: Manifest) -> dict[str, Any]:
    """What of `manifest` decides the bytes: limits, budgets, licence and mirrors do not."""
    return {
        "name": manifest.name,
        "task": options(manifest.task),
        "source": options(manifest.source.first),
        "files": list(manifest.source.files),
        "export": options(manifest.export),
        "variants": {variant.name: options(variant.scheme) for variant in manifest.variants.values()},
    }


def signatures(manifest: Manifest) -> dict[str, dict[str, list[str]]]:
    """The signature of each part as JSON built-ins."""
    return {
        part: {
            "inputs": [f"{spec.name}: {spec}" for spec in signature.inputs],
            "outputs": [f"{spec.name}: {spec}" for spec in signature.outputs],
        }
        for part, signature in manifest.signatures.items()
    }


def options(choice: Choice) -> dict[str, Any]:
    """A choice as JSON built-ins."""
    return {choice.kind: json.loads(json.dumps(asdict(choice.options)))}


def insist_current(manifest: Manifest, lock: Lock) -> None:
    """Raise `ManifestError` naming the first thing in which `manifest` has moved on from `lock`."""
    if changed := difference(lock.recipe, recipe(manifest)):
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise ManifestError(
            f"was locked for another recipe: {changed[0]}{more}",
            where=path_of(manifest.path),
            hint=f"run `modelkit lock {manifest.path}`, or undo the change",
        )


def _plain(files: Mapping[str, FileDigest]) -> dict[str, Any]:
    return {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in files.items()}
