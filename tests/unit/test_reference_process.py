"""Questions to the reference environment: files in, files out; what goes wrong there is one line here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelkit.errors import StageError
from modelkit.reference import environment, process

SCRIPTS = {
    "twice": "def answer(request):\n    return {'twice': request['x'] * 2}\n",
    "refuses": "import sys\ndef answer(request):\n    sys.exit('optimum exports no model_type x')\n",
    "breaks": "def answer(request):\n    print('much', flush=True)\n    raise ValueError('seven is no eight')\n",
    "surroundings": (
        "import os, sys\ndef answer(request):\n"
        "    return {'environment': dict(os.environ), 'isolated': sys.flags.isolated}\n"
    ),
    "fetches": (
        "import urllib.request\ndef answer(request):\n"
        "    return {'page': str(urllib.request.urlopen('http://127.0.0.1:9/').read())}\n"
    ),
    "dies": "import os\ndef answer(request):\n    os._exit(7)\n",
}  # fmt: skip


@pytest.fixture(autouse=True)
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts above beside the real entry, and this Python in place of the environment's."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "inside_entry.py").write_bytes(process.ENTRY.read_bytes())
    for name, content in SCRIPTS.items():
        (folder / f"inside_{name}.py").write_text(content)
    monkeypatch.setattr(process, "ENTRY", folder / "inside_entry.py")
    monkeypatch.setattr(environment, "python", lambda: Path(sys.executable))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(environment.NAMED, raising=False)


def refusal(script: str) -> StageError:
    with pytest.raises(StageError) as caught:
        process.answer(script, {})
    return caught.value


def test_an_answer_comes_back() -> None:
    assert process.answer("twice", {"x": [1, "ü"]}) == {"twice": [1, "ü", 1, "ü"]}


def test_a_refusal_is_its_last_line() -> None:
    assert refusal("refuses").message == "optimum exports no model_type x"


def test_a_crash_is_the_last_line_of_its_traceback_and_the_log_has_all_of_it() -> None:
    error = refusal("breaks")
    assert error.message == "ValueError: seven is no eight"
    assert "Traceback" in error.log
    kept = Path(str(error.hint).removeprefix("the whole log is "))
    assert kept.read_text() == error.log


def test_a_process_that_dies_without_a_word_is_told() -> None:
    assert "ended with exit code 7 and without a word" in refusal("dies").message


def test_the_network_is_refused() -> None:
    assert "the reference environment does not use the network" in refusal("fetches").log


def test_settings_of_the_user_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    found = process.answer("surroundings", {})
    assert found["isolated"] == 1
    assert {"HF_TOKEN", "PYTHONPATH"} & found["environment"].keys() == set()
    assert found["environment"]["HF_HUB_OFFLINE"] == "1"


def test_a_log_that_cannot_be_kept_is_told_and_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    error = refusal("refuses")
    assert error.message == "optimum exports no model_type x"
    assert str(error.hint).startswith("its log could not be kept")
