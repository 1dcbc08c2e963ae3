"""From a manifest to a finished folder. The list of stages is the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from modelkit import lock
from modelkit.digests import digest_folder, digest_of, key_of
from modelkit.errors import ManifestError, ModelkitError, StageError
from modelkit.stages import convert, download, finalize, quantize
from modelkit.stages.job import Job, tool
from modelkit.store import Store
from modelkit.vocabulary import Artifact, Fetching, FileDigest, Manifest, Stage, Variant

STAGES: tuple[Any, ...] = (
    download,  # the source's files, from the first place that serves the pinned bytes
    convert,  # the float32 model as ONNX, with pooling and normalisation inside; the reference of all checks
    quantize,  # the variant's scheme applied to it
    finalize,  # one folder with all that a consumer needs, and its sums
)


@dataclass
class Build:
    """One job on its way through the stages; `artifact(name)` makes only what is missing."""

    job: Job
    store: Store
    force: bool = False
    made: dict[str, Artifact] = field(default_factory=dict)

    def artifact(self, name: str) -> Artifact:
        """The checkpoint `name`, verified: found in the store, or made from its inputs."""
        if name not in self.made:
            module, stage = _module(name), self.stage(name)
            # A download is checked by content: fetching it once more could not show anything.
            force = self.force and module is not download
            made = self._made(module, stage, force=force)
            self.store.remember(f"{self.job.name}/{name}", stage)
            self.made[name] = replace(made, chain=self.chain(name))
        return self.made[name]

    def stage(self, name: str) -> Stage:
        """Name, key and material, from what the store knows of its inputs; makes an input that it does not know."""
        module = _module(name)
        material = {
            "stage": name,
            "version": module.VERSION,
            **module.material(self.job, {needed: self._digest(needed) for needed in module.INPUTS}),
        }
        return Stage(name, key_of(material), material)

    def chain(self, name: str) -> tuple[Stage, ...]:
        """The stages that lead to `name`, itself last."""
        wanted = [module.NAME for module in STAGES]
        return tuple(self.stage(step) for step in wanted[: wanted.index(name) + 1])

    def _digest(self, name: str) -> str:
        if name == download.NAME:
            return digest_of(self.job.files)
        if name in self.made:
            return self.made[name].digest
        # Its bytes are verified only when something reads them: a warm run looks at finished files alone.
        known = self.store.find(self.stage(name).key, verify=False)
        return (self.artifact(name) if self.force or known is None else known).digest

    def _made(self, module: Any, stage: Stage, *, force: bool) -> Artifact:
        try:
            return self.store.make(stage, lambda into: self._run(module, into), force=force)
        except ModelkitError as error:
            # An input that could not be made has said so already.
            if not error.message.startswith(self.job.name):
                error.message = f"{self.job.name} could not be {module.NAME}: {error.message}"
            raise

    def _run(self, module: Any, into: Path) -> None:
        module.run(self.job, {needed: self.artifact(needed).folder for needed in module.INPUTS}, into)


@dataclass
class Pins:
    """Which source files each manifest of a run is built from: those of its lock, or for a draft what was served."""

    store: Store
    drafts: dict[Path, dict[str, FileDigest]] = field(default_factory=dict)

    def prepare(
        self, manifest: Manifest, variant: Variant, locked: lock.Lock | None, context: Fetching, *, force: bool = False
    ) -> Build:
        """A build of `variant`. A draft (`locked` None) is resolved once, for all its variants alike.

        Raises `ManifestError` when the lock is for another recipe.
        """
        if locked is not None:
            lock.insist_current(manifest, locked)
            return Build(Job(manifest, variant, locked.source, context), self.store, force)
        told: list[str] = []
        if manifest.path not in self.drafts:
            _, self.drafts[manifest.path], told = resolve(manifest, self.store, context)
        return Build(Job(manifest, variant, self.drafts[manifest.path], context, told), self.store, force)


def resolve(manifest: Manifest, store: Store, context: Fetching) -> tuple[str, dict[str, FileDigest], list[str]]:
    """What the source serves now, brought into the store: (identity, files, what happened)."""
    with store.workspace(download.NAME) as fetched:
        served = download.fetch(manifest.source, None, fetched, context)
        files = dict(served.files)
        job = Job(manifest, next(iter(manifest.variants.values())), files, context)
        stage = Build(job, store).stage(download.NAME)
        store.make(stage, lambda into: _move(fetched, into))
    return served.identity, files, [*served.refused, f"downloaded from {served.place}"]


def build(prepared: Build, locked: lock.Lock | None = None) -> Artifact:
    """The finished artifact; with a lock, exactly the one it names. Raises `StageError` naming what
    differs, `ManifestError` for a lock that names nothing."""
    job, expected = prepared.job, locked.artifacts.get(prepared.job.variant.name) if locked else None
    if locked and not expected:
        raise ManifestError(
            f"names no finished files of {job.variant.name}",
            where=lock.path_of(job.manifest.path),
            hint=f"run `modelkit lock {job.manifest.path}`",
        )
    artifact = prepared.artifact(finalize.NAME)
    if locked and expected and dict(expected) != dict(artifact.files):
        raise StageError(
            _not_as_locked(job, artifact, expected, locked),
            where=lock.path_of(job.manifest.path),
            hint=f"install the locked tools, or accept it with `modelkit lock {job.manifest.path}`",
        )
    return artifact


def again(build: Build) -> Mapping[str, FileDigest]:
    """What the stages after the download make of the same source now, one after the other, outside the store."""
    with build.store.workspace(f"building {build.job.name} again") as place:
        folders = {download.NAME: build.artifact(download.NAME).folder}
        for module in STAGES[1:]:
            into = place / module.NAME
            into.mkdir()
            module.run(build.job, {needed: folders[needed] for needed in module.INPUTS}, into)
            folders[module.NAME] = into
        return digest_folder(folders[finalize.NAME])


def siblings(build: Build) -> dict[str, Build]:
    """Builds of the manifest's other variants from the same files, by name."""
    own, others = build.job, build.job.manifest.variants.values()
    return {one.name: Build(replace(own, variant=one), build.store) for one in others if one.name != own.variant.name}


def _not_as_locked(job: Job, artifact: Artifact, expected: Mapping[str, FileDigest], locked: lock.Lock) -> str:
    name = next(n for n in sorted({*expected, *artifact.files}) if expected.get(n) != artifact.files.get(n))
    was, now = expected.get(name), artifact.files.get(name)
    tools = [f"{t} {v} -> {_installed(t)}" for t, v in locked.tools.items() if _installed(t) != v]
    return (
        f"{job.name}: {name} has sha256 {now.sha256[:12] if now else 'nothing'}…, "
        f"the lock says {was.sha256[:12] if was else 'nothing'}… "
        f"({', '.join(tools) or 'with the same tools'})"
    )


def _installed(name: str) -> str:
    try:
        return tool(name)
    except PackageNotFoundError:
        return "not installed"


def _module(name: str) -> Any:
    return next(module for module in STAGES if name == module.NAME)


def _move(source: Path, into: Path) -> None:
    for entry in sorted(source.iterdir()):
        entry.rename(into / entry.name)
