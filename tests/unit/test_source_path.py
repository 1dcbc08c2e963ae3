"""sources/path.py: a folder on this machine."""

from __future__ import annotations

import errno
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

import pytest

from modelkit.errors import SourceError
from modelkit.sources import path
from modelkit.vocabulary import Fetching, Wanted


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests" / "weights"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "1_Pooling" / "config.json").write_bytes(b'{"pooling": "mean"}')
    return folder


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def refusal(options: path.Options, wanted: Wanted, into: Path, base: Path) -> str:
    with pytest.raises(SourceError) as caught:
        path.fetch(options, wanted, into, Fetching(base))
    return str(caught.value)


def test_the_first_option_is_named_like_the_kind() -> None:
    assert fields(path.Options)[0].name == "path"


def test_a_relative_folder_starts_at_the_manifest(model: Path, into: Path) -> None:
    identity = path.fetch(path.Options("weights"), Wanted(patterns=("*.json",)), into, Fetching(model.parent))
    assert identity == "weights"
    assert names(into) == {"config.json"}


def test_exact_names_keep_their_folders(model: Path, into: Path) -> None:
    path.fetch(path.Options(str(model)), Wanted(names=("1_Pooling/config.json",)), into, Fetching(into))
    assert names(into) == {"1_Pooling/config.json"}


def test_an_offline_run_may_read_a_folder(model: Path, into: Path) -> None:
    path.fetch(path.Options(str(model)), Wanted(patterns=("*",)), into, Fetching(into, offline=True))
    assert names(into) == {"config.json", "model.safetensors"}


def test_links_to_files_are_followed_as_in_a_hub_cache(model: Path, into: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"tokens")
    (model / "tokenizer.json").symlink_to(tmp_path / "blob")
    path.fetch(path.Options(str(model)), Wanted(names=("tokenizer.json",)), into, Fetching(into))
    assert (into / "tokenizer.json").read_bytes() == b"tokens"
    assert not (into / "tokenizer.json").is_symlink()


def test_a_missing_folder_is_named(model: Path, into: Path) -> None:
    assert f"the folder {model.parent / 'no'} does not exist" in refusal(
        path.Options("no"), Wanted(patterns=("*",)), into, model.parent
    )


def test_a_file_is_not_a_folder(model: Path, into: Path) -> None:
    assert "is not a folder" in refusal(path.Options("config.json"), Wanted(patterns=("*",)), into, model)


def test_a_missing_file_is_named(model: Path, into: Path) -> None:
    assert "has no 'vocab.txt'" in refusal(path.Options("."), Wanted(names=("vocab.txt",)), into, model)


def test_an_unsafe_name_is_refused(model: Path, into: Path) -> None:
    wanted = Wanted(names=("../weights/config.json",))
    assert "could leave its folder" in refusal(path.Options("."), wanted, into, model)


def test_an_unreadable_file_is_named(model: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str = "r") -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert "config.json cannot be read" in refusal(path.Options("."), Wanted(patterns=("*",)), into, model)


def test_a_full_disk_is_not_blamed_on_the_source(model: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r") -> object:
        def no_room() -> NoReturn:
            raise OSError(errno.ENOSPC, "No space left on device")

        return no_room() if "w" in mode else opened(self, mode)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space"):
        path.fetch(path.Options(str(model)), Wanted(patterns=("*",)), into, Fetching(into))
