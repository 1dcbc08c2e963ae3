"""sources/package.py against the real pip and an index on loopback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from random import Random

import pytest

import servers
from modelkit.errors import SourceError
from modelkit.sources import package
from modelkit.vocabulary import Fetching, Wanted

NAME = "tiny-model==0.1.0"
MODEL = {
    "tiny_model/__init__.py": b"raise SystemExit('a model wheel must never be imported')",
    "tiny_model/model/config.json": b'{"model_type": "bert"}',
    "tiny_model/model/model.safetensors": Random(0).randbytes(600_000),
    "tiny_model/model/1_Pooling/config.json": b"{}",
}
EXACT = Wanted(names=("config.json", "1_Pooling/config.json"))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    return folder


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, wheels: Path) -> Iterator[servers.Index]:
    running = servers.Index(wheels)
    with running.running():
        servers.use_index(monkeypatch, f"{running.url}/simple")
        yield running


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def refusal(options: package.Options, into: Path, wanted: Wanted = EXACT) -> str:
    with pytest.raises(SourceError) as caught:
        package.fetch(options, wanted, into, Fetching(into))
    return str(caught.value)


def test_the_first_option_is_named_like_the_kind() -> None:
    assert fields(package.Options)[0].name == "package"


def test_only_the_wanted_files_come_out_of_the_wheel(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", MODEL)
    assert package.fetch(package.Options(NAME), EXACT, into, Fetching(into)) == NAME
    assert names(into) == {"config.json", "1_Pooling", "1_Pooling/config.json"}
    assert (into / "config.json").read_bytes() == MODEL["tiny_model/model/config.json"]


def test_patterns_are_relative_to_the_shallowest_folder_with_a_configuration(
    index: servers.Index, wheels: Path, into: Path
) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", MODEL)
    package.fetch(package.Options(NAME), Wanted(patterns=("*.json", "*.safetensors")), into, Fetching(into))
    assert names(into) == {"config.json", "model.safetensors"}


def test_exact_names_find_the_folder_that_holds_all_of_them(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", {**MODEL, "tiny_model/config.json": b"not the model's"})
    package.fetch(package.Options(NAME), EXACT, into, Fetching(into))
    assert (into / "config.json").read_bytes() == MODEL["tiny_model/model/config.json"]


def test_a_named_folder_wins(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", {**MODEL, "other/config.json": b"other"})
    package.fetch(package.Options(NAME, folder="other/"), Wanted(patterns=("*",)), into, Fetching(into))
    assert (into / "config.json").read_bytes() == b"other"


def test_a_missing_folder_is_named(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", MODEL)
    assert "no folder 'nowhere'" in refusal(package.Options(NAME, folder="nowhere"), into)


def test_two_equally_deep_models_need_a_folder(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", {"a/config.json": b"1", "b/config.json": b"2"})
    said = refusal(package.Options(NAME), into, Wanted(patterns=("*",)))
    assert "'a/', 'b/'" in said
    assert "`folder`" in said


# pip tells nothing about files below 512 KiB.
def test_progress_reaches_the_size_of_the_wheel(index: servers.Index, wheels: Path, into: Path) -> None:
    size = servers.wheel(wheels, "tiny-model", "0.1.0", MODEL).stat().st_size
    told: list[tuple[str, int, int | None]] = []
    context = Fetching(into, progress=lambda *step: told.append(step))
    package.fetch(package.Options(NAME), EXACT, into, context)
    assert (NAME, size, size) in told


def test_nothing_but_the_files_stays_in_the_folder(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", MODEL)
    refusal(package.Options(NAME), into, Wanted(names=("vocab.txt",)))
    assert names(into) == set()


def test_a_missing_file_is_named(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", MODEL)
    assert "has no 'vocab.txt'" in refusal(package.Options(NAME), into, Wanted(names=("config.json", "vocab.txt")))


@pytest.mark.parametrize("name", ["tiny-model", "tiny-model>=0.1", "tiny-model==0.*", "--help==1", "a==1 b==2", "./x"])
def test_anything_but_an_exact_version_is_refused_without_pip(
    into: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert "name==version" in refusal(package.Options(name), into)


def test_an_offline_run_does_not_start_pip(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(SourceError, match="offline"):
        package.fetch(package.Options(NAME), EXACT, into, Fetching(into, offline=True))


def test_an_unknown_version_is_one_line_of_pip(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", MODEL)
    assert "No matching distribution found for tiny-model==9" in refusal(package.Options("tiny-model==9"), into)


def test_an_unreachable_index_is_told_apart_from_an_unknown_version(
    into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.use_index(monkeypatch, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    assert "index cannot be reached" in refusal(package.Options(NAME), into)


def test_addresses_and_passwords_of_the_index_are_never_repeated(into: Path) -> None:
    said = "ERROR: 401 Client Error for url: https://me:secret@index.example/simple/tiny-model/\n"
    message = str(package._explained(said))
    assert "401 Client Error" in message
    assert "secret" not in message
    assert "index.example" not in message


def test_a_full_disk_is_not_blamed_on_the_index(into: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        package._explained("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n")
    assert caught.value.errno == errno.ENOSPC


def test_a_damaged_wheel_is_one_sentence(index: servers.Index, wheels: Path, into: Path) -> None:
    path = servers.wheel(wheels, "tiny-model", "0.1.0", MODEL)
    path.write_bytes(path.read_bytes()[:200])
    assert "\n" not in refusal(package.Options(NAME), into)


def test_a_wheel_with_a_name_that_leaves_its_folder_is_refused(index: servers.Index, wheels: Path, into: Path) -> None:
    servers.wheel(wheels, "tiny-model", "0.1.0", {**MODEL, "../evil.py": b"evil"})
    assert "could leave its folder" in refusal(package.Options(NAME), into)
