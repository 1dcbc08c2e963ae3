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


def path_of(manifest: Path) -> Path:
    """Where the lock of `manifest` is, or would be."""
    return manifest.with_suffix(".lock")


def read(manifest: Path) -> Lock | None:
    """The lock beside `manifest`; None when there is none. Raises `ManifestError` when it cannot be read."""
    path = path_of(manifest)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ManifestError(f"has format {fields['format']}, this modelkit reads {FORMAT}", where=path,
                                hint=f"run `modelkit lock {manifest}`")  # fmt: skip
        return Lock(
            source=_digests(fields["source"]["files"]),
            identity=fields["source"]["identity"],
            recipe=dict(fields["recipe"]),
            tools=dict(fields["tools"]),
            artifacts={name: _digests(files) for name, files in fields["artifacts"].items()},
            measured=dict(fields["measured"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"cannot be read ({error.strerror})", where=path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"is no lock ({type(error).__name__}: {error})", where=path, hint=f"run `modelkit lock {manifest}`"
        ) from error


def text(lock: Lock) -> str:
    """The file's content: sorted, so that a change is a readable diff."""
    fields = {
        "format": FORMAT,
        "source": {"identity": lock.identity, "files": _plain(lock.source)},
        "recipe": lock.recipe,
        "tools": lock.tools,
        "artifacts": {name: _plain(files) for name, files in lock.artifacts.items()},
        "measured": lock.measured,
    }
    return json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def recipe(manifest: Manifest) -> dict[str, Any]:
    """What of `manifest` decides the bytes: limits, budgets, licence and mirrors do not."""
    return {
        "name": manifest.name,
        "task": options(manifest.task),
        "source": options(manifest.source.first),
        "export": options(manifest.export),
        "variants": {variant.name: options(variant.scheme) for variant in manifest.variants.values()},
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


def _digests(files: Mapping[str, Mapping[str, Any]]) -> dict[str, FileDigest]:
    return {name: FileDigest(str(entry["sha256"]), int(entry["size"])) for name, entry in files.items()}


def _plain(files: Mapping[str, FileDigest]) -> dict[str, Any]:
    return {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in files.items()}
