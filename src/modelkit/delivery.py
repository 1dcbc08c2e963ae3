"""Finished folders for people and scripts: `build/<channel>/out/Final/<name>/`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from modelkit.digests import digest_folder
from modelkit.errors import ArtifactError, StageError
from modelkit.stages.finalize import SUMS
from modelkit.vocabulary import Artifact, Manifest, Variant

BUILD = Path("build")


def folder_of(manifest: Manifest, variant: Variant, root: Path = BUILD) -> Path:
    """Where `variant` goes: a channel's first variant has the model's name, a further one carries its own as well."""
    first = next(other for other in manifest.variants.values() if other.channel == variant.channel)
    name = manifest.name if first.name == variant.name else f"{manifest.name}-{variant.name}"
    return root / variant.channel / "out" / "Final" / name


def deliver(artifact: Artifact, folder: Path, *, force: bool = False) -> bool:
    """Put `artifact` into `folder`, whole or not at all; True when something was written.

    Raises `ArtifactError` when somebody changed what modelkit put there, unless `force`.
    """
    if folder.exists():
        found = _changed(folder)
        if found and not force:
            raise ArtifactError(
                f"was changed after the build ({found})",
                where=folder,
                hint="move it away to keep it, or run with --force to replace it",
            )
        if not found and digest_folder(folder) == dict(artifact.files):
            return False
    _replace(artifact, folder)
    return True


def _changed(folder: Path) -> str:
    """What is not as the folder's own sums say; empty when all is."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = {name: entry.sha256 for name, entry in digest_folder(folder).items() if name != SUMS}
    except ArtifactError as error:
        return error.message
    except (OSError, UnicodeDecodeError) as error:
        return f"{SUMS} cannot be read: {error.__class__.__name__}"
    different = sorted(name for name in {*sums, *found} if sums.get(name) != found.get(name))
    return ", ".join(different)


def _replace(artifact: Artifact, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # On the same disk, so that the rename below is one step.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as private:
            fresh = Path(private) / "new"
            shutil.copytree(artifact.folder, fresh)
            old = Path(private) / "old"
            if folder.exists():
                folder.rename(old)
            try:
                fresh.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        # shutil gathers the errors of several files in one that has no text of its own.
        raise StageError(
            f"cannot be written ({error.strerror or error})",
            where=folder,
            hint="free some space or make the folder writable",
        ) from error
