"""sources/url.py against plain servers on loopback and `file:` addresses."""

from __future__ import annotations

import io
import socket
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import servers
from modelkit.errors import SourceError
from modelkit.sources import url
from modelkit.vocabulary import Fetching, Wanted

FILES = {"m/config.json": b"{}", "m/1_Pooling/config.json": b"pooling", "m/a b.txt": b"space"}
EXACT = Wanted(names=("config.json", "1_Pooling/config.json"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[servers.Files]:
    servers.only_loopback(monkeypatch)
    running = servers.Files(FILES)
    with running.running():
        yield running


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def refusal(address: str, into: Path, wanted: Wanted = EXACT, *, offline: bool = False) -> str:
    with pytest.raises(SourceError) as caught:
        url.fetch(url.Options(address), wanted, into, Fetching(into, offline=offline))
    return str(caught.value)


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return packed.getvalue()


def tarred(files: dict[str, bytes], *links: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
        for link in links:
            archive.addfile(link)
    return packed.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_the_first_option_is_named_like_the_kind() -> None:
    assert fields(url.Options)[0].name == "url"


def test_named_files_of_a_folder_keep_their_names(server: servers.Files, into: Path) -> None:
    assert url.fetch(url.Options(f"{server.url}/m/"), EXACT, into, Fetching(into)) == f"{server.url}/m/"
    assert (into / "1_Pooling/config.json").read_bytes() == b"pooling"


def test_a_name_is_quoted_on_the_way(server: servers.Files, into: Path) -> None:
    url.fetch(url.Options(f"{server.url}/m/"), Wanted(names=("a b.txt",)), into, Fetching(into))
    assert (into / "a b.txt").read_bytes() == b"space"


def test_a_missing_named_file_is_an_error(server: servers.Files, into: Path) -> None:
    assert "has no 'vocab.txt'" in refusal(f"{server.url}/m/", into, Wanted(names=("config.json", "vocab.txt")))


def test_a_plain_pattern_that_is_absent_is_skipped(server: servers.Files, into: Path) -> None:
    wanted = Wanted(patterns=("config.json", "vocab.txt"))
    url.fetch(url.Options(f"{server.url}/m/"), wanted, into, Fetching(into))
    assert names(into) == {"config.json"}


def test_a_folder_without_any_wanted_file_is_an_error(server: servers.Files, into: Path) -> None:
    assert "'vocab.txt'" in refusal(f"{server.url}/m/", into, Wanted(patterns=("vocab.txt",)))


def test_a_real_pattern_cannot_be_looked_up_in_a_web_folder(server: servers.Files, into: Path) -> None:
    said = refusal(f"{server.url}/m/", into, Wanted(patterns=("config.json", "*.safetensors")))
    assert "cannot be listed" in said
    assert "`source.files`" in said
    assert server.requests == []


def test_progress_ends_at_the_size(server: servers.Files, into: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    context = Fetching(into, progress=lambda *step: told.append(step))
    url.fetch(url.Options(f"{server.url}/m/"), Wanted(names=("config.json",)), into, context)
    assert told[-1] == ("config.json", 2, 2)


@pytest.mark.usefixtures("no_pauses")
def test_a_passing_failure_is_tried_again(server: servers.Files, into: Path) -> None:
    server.first = [servers.Answer(503), servers.Answer(429)]
    url.fetch(url.Options(f"{server.url}/m/"), EXACT, into, Fetching(into))
    assert "config.json" in names(into)


@pytest.mark.usefixtures("no_pauses")
def test_a_lasting_failure_ends_after_three_attempts(server: servers.Files, into: Path) -> None:
    server.first = [servers.Answer(500)] * 9
    assert "answered 500" in refusal(f"{server.url}/m/", into)
    assert len(server.requests) == 3


def test_a_refusal_is_not_tried_again(server: servers.Files, into: Path) -> None:
    server.first = [servers.Answer(403)]
    assert "answered 403" in refusal(f"{server.url}/m/", into)
    assert len(server.requests) == 1


@pytest.mark.usefixtures("no_pauses")
def test_fewer_bytes_than_promised_are_an_error(server: servers.Files, into: Path) -> None:
    server.first = [servers.Answer(200, b"half of it", cut=5)] * 9
    assert "cannot be reached" in refusal(f"{server.url}/m/", into)


@pytest.mark.usefixtures("no_pauses")
def test_an_unreachable_server_is_one_sentence(server: servers.Files, into: Path) -> None:
    assert "127.0.0.1 cannot be reached" in refusal("http://127.0.0.1:9/m/", into)


@pytest.mark.usefixtures("no_pauses")
def test_a_silent_server_is_given_up(server: servers.Files, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url, "SILENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "did not answer in time" in refusal(f"http://127.0.0.1:{silent.getsockname()[1]}/m/", into)


def test_an_offline_run_makes_no_request(server: servers.Files, into: Path) -> None:
    assert "offline" in refusal(f"{server.url}/m/", into, offline=True)
    assert server.requests == []


def test_passwords_and_tokens_are_in_no_message_and_no_identity(server: servers.Files, into: Path) -> None:
    secret = server.url.replace("//", "//me:secret@") + "/m/?token=secret"
    assert url.fetch(url.Options(secret), EXACT, into, Fetching(into)) == f"{server.url}/m/"
    assert any("token=secret" in request for request in server.requests)
    server.first = [servers.Answer(403)]
    assert "secret" not in refusal(secret, into)


@pytest.mark.parametrize("address", ["ftp://x/m/", "m/", "", "s3://bucket/m/"])
def test_other_schemes_are_refused(into: Path, address: str) -> None:
    assert "not supported" in refusal(address, into)


@pytest.mark.parametrize(
    ("address", "words"), [("http://[::1/m/", "not an address"), ("file:m/", "absolute"), ("http://a:b/m/", "reached")]
)
@pytest.mark.usefixtures("no_pauses")
def test_a_malformed_address_is_one_sentence(into: Path, address: str, words: str) -> None:
    assert words in refusal(address, into)


def test_a_proxy_that_cannot_be_used_is_one_sentence(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:9")
    assert "the proxy of this environment" in refusal("http://example.test/m/", into)


def test_an_address_that_is_neither_folder_nor_archive_is_refused(server: servers.Files, into: Path) -> None:
    assert "neither a folder nor a known archive" in refusal(f"{server.url}/m/config.json", into)


def test_a_local_folder_can_be_a_file_address(into: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    context = Fetching(into, offline=True)
    url.fetch(url.Options(tmp_path.as_uri() + "/"), Wanted(patterns=("config.json", "vocab.txt")), into, context)
    assert names(into) == {"config.json"}


@pytest.mark.parametrize(("suffix", "pack"), [("zip", zipped), ("whl", zipped), ("tar.gz", tarred), ("tgz", tarred)])
def test_an_archive_yields_the_files_of_its_model_folder(
    server: servers.Files, into: Path, suffix: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    server.files[f"/a.{suffix}"] = pack({"m-1.0/README": b"", "m-1.0/config.json": b"{}", "m-1.0/x/config.json": b"x"})
    url.fetch(url.Options(f"{server.url}/a.{suffix}"), Wanted(patterns=("*.json", "x/*")), into, Fetching(into))
    assert {"config.json", "x", "x/config.json"} == names(into)


def test_a_missing_archive_is_an_error(server: servers.Files, into: Path) -> None:
    assert "there is no such file" in refusal(f"{server.url}/no.zip", into)


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_damaged_archive_is_one_sentence(server: servers.Files, into: Path, suffix: str) -> None:
    server.files[f"/a.{suffix}"] = b"this is a page about errors"
    assert "the archive cannot be read" in refusal(f"{server.url}/a.{suffix}", into)


def test_a_truncated_archive_is_one_sentence(server: servers.Files, into: Path) -> None:
    server.files["/a.tar.gz"] = tarred({"config.json": bytes(range(256)) * 400})[:300]
    assert "cannot be read" in refusal(f"{server.url}/a.tar.gz", into, Wanted(patterns=("*",)))


@pytest.mark.parametrize("evil", ["../evil", "/etc/evil", "a\\..\\evil", "m/../../evil"])
@pytest.mark.parametrize(("suffix", "pack"), [("zip", zipped), ("tar.gz", tarred)])
def test_an_archive_with_a_name_that_leaves_its_folder_is_refused(
    server: servers.Files, into: Path, suffix: str, pack: Callable[[dict[str, bytes]], bytes], evil: str
) -> None:
    server.files[f"/a.{suffix}"] = pack({"config.json": b"{}", evil: b"evil"})
    assert "could leave its folder" in refusal(f"{server.url}/a.{suffix}", into, Wanted(patterns=("*",)))
    assert names(into) == set()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "config.json", "vocab.txt"])
def test_a_wanted_link_in_a_tar_archive_is_refused(server: servers.Files, into: Path, kind: bytes, target: str) -> None:
    server.files["/a.tar.gz"] = tarred({"config.json": b"{}"}, link("vocab.txt", target, kind))
    assert "'vocab.txt' in the archive is a link" in refusal(f"{server.url}/a.tar.gz", into, Wanted(patterns=("*",)))


def test_a_wanted_link_in_a_zip_archive_is_refused(server: servers.Files, into: Path) -> None:
    entry = zipfile.ZipInfo("vocab.txt")
    entry.external_attr = 0o120777 << 16
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    server.files["/a.zip"] = packed.getvalue()
    assert "is a link" in refusal(f"{server.url}/a.zip", into, Wanted(patterns=("*",)))


def test_an_unwanted_link_in_an_archive_is_left_alone(server: servers.Files, into: Path) -> None:
    server.files["/a.tar.gz"] = tarred({"config.json": b"{}"}, link("README", "/etc/passwd"))
    url.fetch(url.Options(f"{server.url}/a.tar.gz"), Wanted(names=("config.json",)), into, Fetching(into))
    assert names(into) == {"config.json"}


def test_an_unsafe_name_is_never_asked_for(server: servers.Files, into: Path) -> None:
    assert "could leave its folder" in refusal(f"{server.url}/m/", into, Wanted(names=("../config.json",)))
    assert server.requests == []
