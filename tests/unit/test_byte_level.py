"""byte_level.py against what transformers made of the same files (references/byte_level.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from modelkit import byte_level
from modelkit.errors import StageError

RECORDED = json.loads((Path(__file__).parents[1] / "references" / "byte_level.json").read_text("utf-8"))
WORDS = RECORDED["vocab.json"].split(" ")


def written(folder: Path, files: dict[str, Any]) -> Path:
    """A source with the recorded vocabulary, and `files` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text(RECORDED["merges.txt"], "utf-8")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


@pytest.fixture(params=RECORDED["cases"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any], Tokenizer]:
    """What was recorded, what is made of the same files, and that as a tokenizer."""
    recorded = RECORDED["cases"][request.param]
    text = byte_level.tokenizer_json(written(tmp_path, recorded["files"]))
    return recorded, json.loads(text), Tokenizer.from_str(text)


def spaced(values: Any) -> str:
    return " ".join(str(int(value) if isinstance(value, bool) else value) for value in values)


def test_every_text_has_the_ids_of_the_reference(case: Any) -> None:
    recorded, _, made = case
    assert [spaced(made.encode(text).ids) for text in RECORDED["texts"]] == recorded["ids"]


def test_a_pair_of_texts_has_the_ids_of_the_reference(case: Any) -> None:
    recorded, _, made = case
    assert spaced(made.encode(RECORDED["texts"][2], RECORDED["texts"][4]).ids) == recorded["pair"]


def test_added_tokens_have_the_ids_and_flags_of_the_reference(case: Any) -> None:
    recorded, content, _ = case
    assert [spaced(token.values()) for token in content["added_tokens"]] == recorded["added"]


def test_the_parts_around_the_model_are_those_of_the_reference(case: Any) -> None:
    recorded, content, _ = case
    assert [content[part] for part in ("pre_tokenizer", "post_processor")] == [
        recorded[part] for part in ("pre_tokenizer", "post_processor")
    ]


def test_a_tokenizer_that_reads_the_file_writes_the_same_again(case: Any) -> None:
    _, content, made = case
    assert json.loads(made.to_str()) == content
