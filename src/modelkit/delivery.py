"""Finished folders for people and scripts: `build/<channel>/out/Final/<name>/`."""

from __future__ import annotations

import shutil
from pathlib import Path

from modelkit import durable
from modelkit.digests import digest_folder, digest_of
from modelkit.errors import ArtifactError, ManifestError, StageError
from modelkit.stages.finalize import SUMS
from modelkit.vocabulary import Artifact, FileDigest, Manifest, Variant

BUILD = Path("build")


def folder_of(manifest: Manifest, variant: Variant, root: Path = BUILD) -> Path:
    """Where `variant` goes: a channel's first variant has the model's name, a further one carries its own as well."""
    first = next(other for other in manifest.variants.values() if other.channel == variant.channel)
    name = manifest.name if first.name == variant.name else f"{manifest.name}-{variant.name}"
    return root / variant.channel / "out" / "Final" / name


def deliver(artifact: Artifact, folder: Path, *, force: bool = False) -> bool:
    """Put `artifact` into `folder`, whole or not at all; True when something was written.

    A run that is killed in between leaves the old folder or none, and the next one finishes. Raises `ArtifactError`
    when somebody changed what modelkit put there, unless `force`; `StageError` when it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with durable.locked(folder.with_name(f".{folder.name}.lock")):
            ours, new = folder.with_name(f".{folder.name}.digest"), digest_of(artifact.files)
            old = []
            if folder.exists() and not force:
                found = _unchanged(folder, ours)
                if found == dict(artifact.files):
                    return False
                old = [digest_of(found)]
            # Both, until one is there: whichever a killed run leaves is ours.
            durable.put(ours, "\n".join([*old, new]).encode())
            _replace(artifact, folder)
            durable.put(ours, new.encode())
            return True
    except OSError as error:
        raise StageError(
            f"cannot be written ({_reason(error)})",
            where=folder,
            hint="free some space or make the folder writable",
        ) from error


def _reason(error: OSError) -> str:
    # shutil gathers (source, target, reason) of several files in one error that has no text of its own.
    return str(error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error)


def _unchanged(folder: Path, ours: Path) -> dict[str, FileDigest]:
    """The digests of what is there. Raises `ArtifactError` when that is not what the folder's own sums say, or (where
    `ours` says what modelkit put there last) something else."""
    try:
        found = digest_folder(folder)
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except ArtifactError as error:
        raise _changed(folder, error.message) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _changed(folder, f"{SUMS} cannot be read: {type(error).__name__}") from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    here = {name: entry.sha256 for name, entry in found.items() if name != SUMS}
    if different := sorted(name for name in {*sums, *here} if sums.get(name) != here.get(name)):
        raise _changed(folder, ", ".join(different))
    if ours.is_file() and digest_of(found) not in ours.read_text(encoding="utf-8", errors="replace").split():
        raise _changed(folder, f"{SUMS}, and what it says")
    return found


def _changed(folder: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"was changed after the build ({what})",
        where=folder,
        hint="move it away to keep it, or run with --force to replace it",
    )


def _replace(artifact: Artifact, folder: Path) -> None:
    # Beside it, so that a rename is one step; what a killed run left there goes first.
    fresh, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    _remove(fresh, old)
    try:
        shutil.copytree(artifact.folder, fresh)
        durable.sync_tree(fresh)
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        _remove(fresh, old)


def _remove(*places: Path) -> None:
    for place in places:
        # What somebody put in the folder's place may be a file or a link.
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


def insist_on_own_folders(manifest: Manifest, owners: dict[Path, Manifest]) -> None:
    """Enter the folders of `manifest` in `owners`. Raises `ManifestError` when one belongs to another manifest already:
    two artifacts in one place would show one of them and hide the other."""
    for variant in manifest.variants.values():
        folder = folder_of(manifest, variant)
        owner = owners.setdefault(folder, manifest)
        if owner.path.absolute() != manifest.path.absolute():
            raise ManifestError(
                f"'{manifest.name}/{variant.name}' would go to {folder}, where {owner.path} puts its own",
                where=manifest.place("name"),
                hint="give one of the two another name",
            )
