"""delivery.py: finished folders for people and scripts, whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import pytest

import small_models
from modelkit import delivery
from modelkit.digests import digest_folder, digest_of
from modelkit.errors import ArtifactError, StageError
from modelkit.stages.finalize import SUMS
from modelkit.vocabulary import Artifact, Manifest, Variant

FILES = {"model.onnx": b"graph", "tokenizer.json": b"{}"}


def artifact(folder: Path, **files: bytes) -> Artifact:
    """As `finalize` leaves it; `model_onnx=b"..."` for other bytes."""
    content = {**FILES, **{name.replace("_", "."): data for name, data in files.items()}}
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    sums = "".join(f"{sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items()))
    (folder / SUMS).write_text(sums)
    found = digest_folder(folder)
    return Artifact(folder, digest_of(found), found)


@pytest.fixture
def made(tmp_path: Path) -> Artifact:
    return artifact(tmp_path / "made")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "build" / "dev" / "out" / "Final" / "tiny"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def alone(folder: Path) -> bool:
    """Whether nothing was left beside it but its lock and its digest."""
    return beside(folder) == [folder.name]


def beside(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if path.suffix not in (".lock", ".digest")]


# Where


def with_channels(**channels: str) -> Manifest:
    manifest = small_models.manifest_of()
    scheme = manifest.variants["fp32"].scheme
    return replace(manifest, variants={name: Variant(name, scheme, channel) for name, channel in channels.items()})


def test_the_first_variant_of_a_channel_has_the_models_name() -> None:
    manifest = with_channels(int8="dev", int4="prod")
    places = [delivery.folder_of(manifest, variant).as_posix() for variant in manifest.variants.values()]
    assert places == ["build/dev/out/Final/tiny", "build/prod/out/Final/tiny"]


def test_further_variants_of_a_channel_carry_their_own_name_as_well() -> None:
    manifest = with_channels(int8="dev", fp16="dev", int4="prod", fp32="dev")
    places = [delivery.folder_of(manifest, variant, Path("o")).as_posix() for variant in manifest.variants.values()]
    assert places == [
        "o/dev/out/Final/tiny", "o/dev/out/Final/tiny-fp16", "o/prod/out/Final/tiny", "o/dev/out/Final/tiny-fp32"
    ]  # fmt: skip


# Delivering


def test_the_folder_is_made_with_all_its_parents(made: Artifact, folder: Path) -> None:
    assert delivery.deliver(made, folder) is True
    assert content(folder) == content(made.folder)
    assert alone(folder)


def test_the_same_again_writes_nothing(made: Artifact, folder: Path) -> None:
    delivery.deliver(made, folder)
    before = (folder / "model.onnx").stat()
    assert delivery.deliver(made, folder) is False
    assert (folder / "model.onnx").stat() == before


def test_other_bytes_replace_what_modelkit_put_there(made: Artifact, folder: Path, tmp_path: Path) -> None:
    delivery.deliver(made, folder)
    other = artifact(tmp_path / "other", model_onnx=b"another graph")
    assert delivery.deliver(other, folder) is True
    assert content(folder) == content(other.folder)
    assert alone(folder)


def test_files_that_are_no_longer_part_of_it_go(made: Artifact, folder: Path, tmp_path: Path) -> None:
    delivery.deliver(artifact(tmp_path / "large", model_onnx_data=b"weights"), folder)
    delivery.deliver(made, folder)
    assert sorted(content(folder)) == [SUMS, "model.onnx", "tokenizer.json"]


def test_the_copy_is_independent_of_the_store(made: Artifact, folder: Path) -> None:
    delivery.deliver(made, folder)
    (folder / "model.onnx").write_bytes(b"edited")
    assert (made.folder / "model.onnx").read_bytes() == b"graph"


# What somebody changed


def edited(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"mine")


def added(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def removed(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def linked(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("/dev/null")


def without_sums(folder: Path) -> None:
    (folder / SUMS).unlink()


def with_odd_sums(folder: Path) -> None:
    (folder / SUMS).write_bytes(b"\xff")


def edited_with_its_sums(folder: Path) -> None:
    edited(folder)
    was, now = (sha256(data).hexdigest() for data in (FILES["model.onnx"], b"mine"))
    (folder / SUMS).write_text((folder / SUMS).read_text().replace(was, now))


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("mine")


CHANGES = [edited, added, removed, linked, without_sums, with_odd_sums, edited_with_its_sums, replaced_by_a_file]


@pytest.mark.parametrize("change", CHANGES)
def test_what_somebody_changed_is_refused_and_kept(made: Artifact, folder: Path, change: Any) -> None:
    delivery.deliver(made, folder)
    change(folder)
    before = sorted(folder.iterdir()) if folder.is_dir() else folder.read_text()
    with pytest.raises(ArtifactError) as caught:
        delivery.deliver(made, folder)
    assert str(caught.value).startswith(f"{folder}: was changed after the build (")
    assert (sorted(folder.iterdir()) if folder.is_dir() else folder.read_text()) == before


@pytest.mark.parametrize("change", CHANGES)
def test_force_replaces_what_somebody_changed(made: Artifact, folder: Path, change: Any) -> None:
    delivery.deliver(made, folder)
    change(folder)
    assert delivery.deliver(made, folder, force=True) is True
    assert content(folder) == content(made.folder)
    assert alone(folder)


def test_the_changed_files_are_named(made: Artifact, folder: Path) -> None:
    delivery.deliver(made, folder)
    edited(folder)
    added(folder)
    with pytest.raises(ArtifactError, match=r"was changed after the build \(model\.onnx, notes\.txt\)"):
        delivery.deliver(made, folder)


def test_a_folder_that_an_older_modelkit_delivered_is_replaced(made: Artifact, folder: Path, tmp_path: Path) -> None:
    delivery.deliver(made, folder)
    folder.with_name(".tiny.digest").unlink()
    other = artifact(tmp_path / "other", model_onnx=b"2")
    assert delivery.deliver(other, folder) is True
    assert content(folder) == content(other.folder)


# When the disk fails


def full_disk(*arguments: Any, **options: Any) -> NoReturn:
    raise shutil.Error([("model.onnx", "there", "[Errno 28] No space left on device")])


@pytest.mark.parametrize("there", [False, True])
def test_a_copy_that_fails_leaves_what_was_there(
    made: Artifact, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        delivery.deliver(made, folder)
    monkeypatch.setattr(shutil, "copytree", full_disk)
    with pytest.raises(StageError, match=r"cannot be written .*No space left on device"):
        delivery.deliver(artifact(tmp_path / "other", model_onnx=b"2"), folder)
    assert beside(folder) == (["tiny"] if there else [])
    if there:
        assert content(folder) == content(made.folder)


def test_a_last_rename_that_fails_brings_the_old_folder_back(
    made: Artifact, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery.deliver(made, folder)
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if self.name == ".tiny.new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(StageError, match=r"cannot be written \(Permission denied\)"):
        delivery.deliver(artifact(tmp_path / "other", model_onnx=b"2"), folder)
    assert content(folder) == content(made.folder)
    assert alone(folder)
    monkeypatch.undo()
    # What was brought back is still modelkit's own.
    assert delivery.deliver(artifact(tmp_path / "third", model_onnx=b"3"), folder) is True


def test_a_half_written_folder_is_never_seen(
    made: Artifact, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery.deliver(made, folder)
    seen = []
    copytree = shutil.copytree

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(content(folder))
        done = copytree(*arguments, **options)
        seen.append(content(folder))
        return done

    monkeypatch.setattr(shutil, "copytree", watched)
    delivery.deliver(artifact(tmp_path / "other", model_onnx=b"2"), folder)
    assert seen == [content(made.folder)] * 2


def test_a_folder_that_cannot_be_made_is_told(made: Artifact, tmp_path: Path) -> None:
    (tmp_path / "build").write_text("a file")
    with pytest.raises(StageError, match="cannot be written"):
        delivery.deliver(made, tmp_path / "build" / "dev" / "tiny")
