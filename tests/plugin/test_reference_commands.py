"""`modelkit exporters` and `modelkit golden` without the reference environment, whose side is played here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from modelkit.cli import modelkit
from modelkit.errors import StageError
from modelkit.reference import environment, process

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(project: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """A command in the project, with no environment and an empty cache."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))
    monkeypatch.delenv(environment.NAMED, raising=False)
    return lambda *arguments: CliRunner().invoke(modelkit, arguments)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the original is asked; each row it gives is the text's length and nothing else."""
    requests: list[dict[str, Any]] = []

    def answer(script: str, request: dict[str, Any]) -> dict[str, Any]:
        assert script == "outputs"
        requests.append(json.loads(json.dumps(request)))
        return {"outputs": [[float(len(text))] * 32 for text in request["texts"]], "versions": {"transformers": "4"}}

    monkeypatch.setattr(environment, "python", lambda progress=None: Path("python"))
    monkeypatch.setattr(process, "answer", answer)
    return requests


def test_every_exporter_is_listed_with_what_it_takes(invoke: Invoke) -> None:
    said = invoke("exporters").output
    for line in ("direct: ", "  model_type bert: feature-extraction", "optimum: ", "prebuilt: "):
        assert f"\n{line}" in f"\n{said}"


def test_an_environment_that_is_missing_is_told_with_what_makes_it(invoke: Invoke, project: Path) -> None:
    said = invoke("exporters").output
    assert f"{environment.folder()}: not made yet; on first use, or with `modelkit exporters --make optimum`" in said
    assert not (project / "cache").exists()


def test_an_environment_that_cannot_be_made_is_an_error(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(environment, "NEEDED", 10**18)
    result = invoke("exporters", "--make", "optimum")
    assert isinstance(result.exception, StageError)
    assert "it needs 1000000000 GB" in str(result.exception)


def test_a_golden_is_written_beside_the_corpora(invoke: Invoke, project: Path, asked: list[dict[str, Any]]) -> None:
    path = project / "conformance" / "golden" / "tiny.json"
    path.unlink()
    result = invoke("golden", "tiny.yaml", "--offline")
    assert result.exit_code == 0, result.output
    assert "tiny.json: written, " in result.output
    golden = json.loads(path.read_text())
    assert set(golden["source"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert [row["text"] for row in golden["rows"]] == asked[0]["texts"]
    assert Path(asked[0]["source"], "model.safetensors").is_file()
    assert asked[0]["options"]["text"]["max_tokens"] == 32


def test_recording_again_says_that_nothing_changed(invoke: Invoke, asked: list[dict[str, Any]]) -> None:
    invoke("golden", "tiny.yaml")
    assert "tiny.json: unchanged, " in invoke("golden", "tiny.yaml").output


def test_an_original_that_gives_something_else_fails_the_model(
    invoke: Invoke, run: Callable[..., pytest.RunResult], asked: list[dict[str, Any]]
) -> None:
    run("tiny.yaml::int8::golden").assert_outcomes(passed=1)
    invoke("golden", "tiny.yaml")
    result = run("tiny.yaml::int8::golden")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*cosine_min * is below 0.999999*"])


def test_a_model_without_a_golden_is_skipped_with_what_to_do(
    project: Path, run: Callable[..., pytest.RunResult]
) -> None:
    (project / "conformance" / "golden" / "tiny.json").unlink()
    result = run("-rs", "tiny.yaml::int8::golden")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*there is no tiny.json; record one with `modelkit golden`*"])
