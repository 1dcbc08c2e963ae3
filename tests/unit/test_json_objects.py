"""JSON files of a model's folder: read, or one sentence that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelkit.errors import StageError
from modelkit.json_objects import read_object


def written(folder: Path, content: bytes) -> Path:
    path = folder / "config.json"
    path.write_bytes(content)
    return path


def test_an_object_is_read_as_it_is(tmp_path: Path) -> None:
    assert read_object(written(tmp_path, '{"a": [1, "ä"]}'.encode())) == {"a": [1, "ä"]}


def test_a_file_that_is_not_there_is_empty_unless_it_is_needed(tmp_path: Path) -> None:
    assert read_object(tmp_path / "config.json") == {}
    with pytest.raises(StageError) as caught:
        read_object(tmp_path / "config.json", needed=True)
    assert str(caught.value) == "no config.json in the source; add it to `source.files`"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "config.json is no JSON"),
        (b"{", "config.json is no JSON"),
        (b"\xff{}", "config.json is no JSON"),
        (b"[" * 100_000, "config.json is no JSON"),
        (b"[]", "config.json holds no JSON object"),
        (b"null", "config.json holds no JSON object"),
    ],
)
def test_anything_else_is_one_sentence(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(StageError) as caught:
        read_object(written(tmp_path, content))
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("fetch the source again")
    assert "\n" not in str(caught.value)
