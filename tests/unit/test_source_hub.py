"""sources/hub.py against the real huggingface_hub client and a hub on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from huggingface_hub import close_session

import servers
from modelkit.errors import SourceError
from modelkit.sources import hub
from modelkit.vocabulary import Fetching, Wanted

FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(256)) * 64,
    "1_Pooling/config.json": b"{}",
    "onnx/model.safetensors": b"not this one",
    "README.md": b"# hello",
}
EXACT = Wanted(names=("config.json", "1_Pooling/config.json"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[servers.Hub]:
    running = servers.Hub(FILES)
    with running.running():
        servers.use_hub(monkeypatch, tmp_path, running.url)
        yield running


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


def options(revision: str | None = servers.COMMIT) -> hub.Options:
    return hub.Options("someone/model", revision)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refusal(wanted: Wanted, into: Path, chosen: hub.Options | None = None, *, offline: bool = False) -> str:
    with pytest.raises(SourceError) as caught:
        hub.fetch(chosen or options(), wanted, into, Fetching(into, offline=offline))
    return str(caught.value)


def test_the_first_option_is_named_like_the_kind() -> None:
    assert fields(hub.Options)[0].name == "hub"


def test_the_wanted_files_keep_their_names_and_bytes(server: servers.Hub, into: Path) -> None:
    hub.fetch(options(), EXACT, into, Fetching(into))
    assert {name: (into / name).read_bytes() for name in names(into)} == {name: FILES[name] for name in EXACT.names}


def test_a_star_stays_inside_one_folder(server: servers.Hub, into: Path) -> None:
    hub.fetch(options(), Wanted(patterns=("*.safetensors", "*/config.json")), into, Fetching(into))
    assert names(into) == {"model.safetensors", "1_Pooling/config.json"}


def test_a_branch_resolves_to_its_full_commit(server: servers.Hub, into: Path) -> None:
    assert hub.fetch(options("main"), EXACT, into, Fetching(into)) == servers.COMMIT


def test_no_revision_resolves_to_the_commit_of_the_default_branch(server: servers.Hub, into: Path) -> None:
    assert hub.fetch(options(None), EXACT, into, Fetching(into)) == servers.COMMIT


def test_exact_names_of_a_cached_commit_cost_no_request(server: servers.Hub, into: Path, tmp_path: Path) -> None:
    hub.fetch(options(), EXACT, into, Fetching(into))
    server.requests.clear()
    (tmp_path / "again").mkdir()
    assert hub.fetch(options(), EXACT, tmp_path / "again", Fetching(into)) == servers.COMMIT
    assert server.requests == []
    assert names(tmp_path / "again") == set(EXACT.names)


def test_a_cached_commit_serves_an_offline_run(server: servers.Hub, into: Path, tmp_path: Path) -> None:
    hub.fetch(options(), EXACT, into, Fetching(into))
    (tmp_path / "again").mkdir()
    hub.fetch(options(), EXACT, tmp_path / "again", Fetching(into, offline=True))
    assert names(tmp_path / "again") == set(EXACT.names)


def test_writing_to_a_fetched_file_leaves_the_cache_alone(server: servers.Hub, into: Path, tmp_path: Path) -> None:
    hub.fetch(options(), EXACT, into, Fetching(into))
    (into / "config.json").write_bytes(b"changed")
    (tmp_path / "again").mkdir()
    hub.fetch(options(), EXACT, tmp_path / "again", Fetching(into))
    assert (tmp_path / "again" / "config.json").read_bytes() == FILES["config.json"]


def test_an_offline_run_says_so_and_makes_no_request(server: servers.Hub, into: Path) -> None:
    assert "this run is offline" in refusal(EXACT, into, offline=True)
    assert server.requests == []


def test_the_variable_hf_hub_offline_is_named(server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refusal(EXACT, into)
    assert server.requests == []


def test_offline_patterns_are_refused_because_the_cache_may_be_a_part(server: servers.Hub, into: Path) -> None:
    assert "without a lock" in refusal(Wanted(patterns=("*",)), into, offline=True)


def test_an_offline_branch_is_refused(server: servers.Hub, into: Path) -> None:
    assert "'main' is not a full commit" in refusal(EXACT, into, options("main"), offline=True)


def test_progress_ends_at_the_size_of_the_file(server: servers.Hub, into: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    wanted = Wanted(names=("model.safetensors",))
    hub.fetch(options(), wanted, into, Fetching(into, progress=lambda *step: told.append(step)))
    size = len(FILES["model.safetensors"])
    assert told[-1] == ("model.safetensors", size, size)


def test_huggingface_hub_draws_nothing(server: servers.Hub, into: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub.fetch(options(), EXACT, into, Fetching(into))
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_named_before_anything_is_downloaded(server: servers.Hub, into: Path) -> None:
    assert "has no 'vocab.txt'" in refusal(Wanted(names=("config.json", "vocab.txt")), into)
    assert not any("resolve" in request for request in server.requests)


def test_a_file_that_vanishes_after_the_listing_is_named(server: servers.Hub, into: Path) -> None:
    server.fault["config.json"] = 404
    assert "answered 404" in refusal(EXACT, into)


def test_patterns_that_match_nothing_are_an_error(server: servers.Hub, into: Path) -> None:
    assert "'*.onnx'" in refusal(Wanted(patterns=("*.onnx",)), into)


def test_a_wrong_repository_says_what_to_check(server: servers.Hub, into: Path) -> None:
    assert "no such repository" in refusal(EXACT, into, hub.Options("someone/else", servers.COMMIT))


def test_an_impossible_repository_id_says_how_to_write_it(server: servers.Hub, into: Path) -> None:
    assert "owner/name" in refusal(EXACT, into, hub.Options("a/b/c", servers.COMMIT))


def test_a_wrong_revision_is_named(server: servers.Hub, into: Path) -> None:
    assert "no revision 'v9'" in refusal(EXACT, into, options("v9"))


def test_a_gated_repository_without_a_token_says_how_to_set_one_and_to_accept_the_licence(
    server: servers.Hub, into: Path
) -> None:
    server.fault["config.json"] = "gated"
    said = refusal(EXACT, into)
    assert "gated, and no token was found on this machine" in said
    assert f"accept the licence at {server.url}/someone/model, then log in with `hf auth login` or set HF_TOKEN" in said
    assert "account" not in said


def test_a_token_that_a_gated_repository_refuses_is_told_to_lack_access(
    server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fault["config.json"] = "gated"
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_one")
    said = refusal(EXACT, into)
    assert "the account of this token has not been granted access" in said
    assert f"accept the licence at {server.url}/someone/model with the account" in said
    assert "no token" not in said
    assert "hf_not_a_real_one" not in said


@pytest.mark.parametrize(("status", "words"), [(401, "valid login"), (403, "forbids"), (404, "404")])
def test_a_refusing_hub_is_one_sentence(server: servers.Hub, into: Path, status: int, words: str) -> None:
    server.fault["api"] = status
    assert words in refusal(EXACT, into)


def test_a_hub_that_forbids_says_whether_there_was_a_token(
    server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fault["api"] = 403
    assert "forbids whoever comes without a token to read it (403); log in with" in refusal(EXACT, into)
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_one")
    assert "forbids the account of this token to read it (403)" in refusal(EXACT, into)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("where", ["api", "config.json"])
def test_a_hub_that_keeps_failing_is_named_with_its_status(server: servers.Hub, into: Path, where: str) -> None:
    server.fault[where] = 500
    assert "answered 500" in refusal(EXACT, into)


@pytest.mark.usefixtures("no_pauses")
def test_a_failing_look_up_is_tried_three_times(server: servers.Hub, into: Path) -> None:
    server.fault["api"] = 503
    refusal(EXACT, into)
    assert len(server.requests) == 3


@pytest.mark.usefixtures("no_pauses")
def test_a_truncated_file_is_an_error_and_leaves_nothing(server: servers.Hub, into: Path) -> None:
    server.fault["config.json"] = "cut"
    assert f"{server.url} cannot be reached" in refusal(EXACT, into)
    assert names(into) == set()


def test_a_server_that_is_no_hub_is_recognised(
    server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda *_: servers.Answer(200, b"<html>Welcome</html>"))
    assert "does not answer like a Hugging Face Hub" in refusal(EXACT, into)


def test_json_that_is_no_repository_is_recognised(
    server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda *_: servers.Answer(200, b"[]"))
    assert "does not answer like a Hugging Face Hub" in refusal(EXACT, into)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-hub.invalid"])
def test_an_unreachable_hub_gives_up_within_seconds(
    server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    started = time.monotonic()
    assert f"{endpoint} cannot be reached" in refusal(EXACT, into)
    assert time.monotonic() - started < 5


def test_a_silent_hub_gives_up_after_one_timeout(
    server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert "did not answer in time" in refusal(EXACT, into)
    assert time.monotonic() - started < 2


def test_a_nonsense_endpoint_is_one_sentence(server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface")
    assert "huggingface cannot be reached" in refusal(EXACT, into)


def test_a_password_in_the_endpoint_is_not_repeated(
    server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://me:secret@127.0.0.1:9")
    assert "secret" not in refusal(EXACT, into)


def test_a_proxy_that_cannot_be_used_is_one_sentence(
    server: servers.Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:9")
    close_session()
    assert "proxy" in refusal(EXACT, into)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a\\b", "C:/x", "a//b", ""])
def test_an_unsafe_name_in_a_lock_is_refused(server: servers.Hub, into: Path, name: str) -> None:
    assert "could leave its folder" in refusal(Wanted(names=(name,)), into)


def test_an_unsafe_name_in_a_listing_is_refused(server: servers.Hub, into: Path) -> None:
    server.files["../evil.json"] = b"{}"
    assert "could leave its folder" in refusal(Wanted(patterns=("*/*.json",)), into)
