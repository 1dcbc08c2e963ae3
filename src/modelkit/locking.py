"""Making a lock: resolve the source, build every variant, measure it, write down what came out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelkit import conformance, kinds, lock, pipeline, runtime
from modelkit.digests import difference
from modelkit.errors import ArtifactError, CheckError
from modelkit.stages.job import Job, tool
from modelkit.store import Store
from modelkit.vocabulary import Artifact, Fetching, FileDigest, Manifest, Progress, Verdict


def resolved(
    manifest: Manifest,
    store: Store,
    *,
    offline: bool,
    progress: Progress,
    reasons: Mapping[str, Mapping[str, Any]] | None = None,
) -> lock.Lock:
    """The lock `manifest` would get now. `reasons` for recipes join those that an earlier lock has for the same ones.

    Files that an earlier lock pins at the same revision are not fetched again. Raises `ArtifactError` when a variant
    does not conform, `CheckError` when that cannot be told: what is locked is what was proven.
    """
    context = Fetching(manifest.path.parent, offline, progress)
    identity, files = pinned(manifest, store, context)
    artifacts, measured = {}, {}
    for variant in manifest.variants.values():
        build = pipeline.Build(Job(manifest, variant, files, context), store)
        artifact = pipeline.build(build)
        artifacts[variant.name] = dict(artifact.files)
        measured[variant.name] = {v.check: _figures(v) for v in _insist(build, _examined(build, artifact))}
    recipe = lock.recipe(manifest)
    known = {**_reasons(lock.read_if_sound(manifest.path), recipe), **(reasons or {})}
    return lock.Lock(files, identity, recipe, _tools(manifest), artifacts, measured, _processor(), known)


def pinned(manifest: Manifest, store: Store, context: Fetching) -> tuple[str, dict[str, FileDigest]]:
    """What the source resolves to and its files: those of an earlier lock of the same source, or fetched now."""
    earlier, recipe = lock.read_if_sound(manifest.path), lock.recipe(manifest)
    if earlier and _is_pinned(manifest) and all(earlier.recipe.get(key) == recipe[key] for key in ("source", "files")):
        return earlier.identity, dict(earlier.source)
    served, files, _ = pipeline.resolve(manifest, store, context)
    return _commit(manifest) or served, files


def _reasons(earlier: lock.Lock | None, recipe: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Those of recipes that are still the same."""
    if earlier is None:
        return {}
    was, now = earlier.recipe.get("variants", {}), recipe["variants"]
    return {name: reason for name, reason in earlier.reasons.items() if name in now and was.get(name) == now[name]}


def _processor() -> dict[str, Any]:
    """What the figures depend on; the number of cores is no part of it."""
    return {name: value for name, value in runtime.cpu().items() if name != "cores"}


def _is_pinned(manifest: Manifest) -> bool:
    """Whether the source always means the same bytes; a folder or a URL may have others today."""
    return _commit(manifest) is not None or manifest.source.first.kind == "package"


def _commit(manifest: Manifest) -> str | None:
    """The full commit that the source is pinned to: that is what it resolves to, whichever mirror served the bytes."""
    revision = str(getattr(manifest.source.first.options, "revision", None))
    return revision if re.fullmatch("[0-9a-f]{40}", revision) else None


def compare(old: lock.Lock | None, new: lock.Lock) -> list[str]:
    """What differs, one line each. Figures may differ between processors, so they are no difference by themselves."""
    if old is None:
        return ["there is no lock yet"]
    return difference(_pinned(old), _pinned(new))


def told(old: lock.Lock | None, new: lock.Lock) -> str:
    """What of a lock file changes when `new` is written over `old`, in few words."""
    if old is None:
        return "written"
    if differences := compare(old, new):
        return "; ".join(differences)
    pairs = {
        "figures": (old.measured, new.measured),
        "tools": (old.tools, new.tools),
        "processor": (old.processor, new.processor),
    }
    others = [name for name, (before, now) in pairs.items() if difference(before, now)]
    return f"the same files, other {' and '.join(others)}" if others else "unchanged"


def _pinned(locked: lock.Lock) -> dict[str, Any]:
    return {
        "source": {name: entry.sha256 for name, entry in locked.source.items()},
        "identity": locked.identity,
        "recipe": dict(locked.recipe),
        "artifacts": {
            v: {name: entry.sha256 for name, entry in files.items()} for v, files in locked.artifacts.items()
        },
    }


def _examined(build: pipeline.Build, artifact: Artifact) -> list[Verdict]:
    return conformance.examine(conformance.Examination(build, artifact))


def _insist(build: pipeline.Build, verdicts: list[Verdict]) -> list[Verdict]:
    for verdict in verdicts:
        if verdict.outcome in ("failed", "errored"):
            kind = ArtifactError if verdict.outcome == "failed" else CheckError
            raise kind(
                f"{build.job.name}: {verdict.check} {verdict.outcome}: {verdict.sentence}",
                where=build.job.manifest.path,
                hint="only what conforms can be locked",
            )
    return verdicts


def _figures(verdict: Verdict) -> Mapping[str, Any]:
    """Numbers to four digits: enough to see a change, few enough not to change with every processor."""
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in verdict.measured.items()
        if isinstance(value, int | float)
    }


def _tools(manifest: Manifest) -> dict[str, str]:
    modules = [kinds.load("exporters", manifest.export.kind)]
    modules += [kinds.load("schemes", variant.scheme.kind) for variant in manifest.variants.values()]
    return {name: tool(name) for name in sorted({name for module in modules for name in module.TOOLS})}
