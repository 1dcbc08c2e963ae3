"""byte_level.py against what transformers made of the same files (references/byte_level.json)."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
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


# What does not fit together

ROBERTA = {"tokenizer_class": "RobertaTokenizer"}


def refusal(folder: Path, **files: Any) -> str:
    """What is told when `files` (stem -> content) are beside the vocabulary."""
    written(folder, {f"{stem}.json": content for stem, content in files.items()})
    with pytest.raises(StageError) as caught:
        byte_level.tokenizer_json(folder)
    return str(caught.value)


def test_an_added_token_keeps_its_id_or_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, tokenizer_config=ROBERTA, added_tokens={"<x>": len(WORDS) + 5})
    size = len(WORDS)
    assert told.startswith(
        f"the added token '<x>' is to have the id {size + 5}, but it gets {size}; the tokenizer's files"
    )


def test_another_class_of_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    told = refusal(tmp_path, tokenizer_config={"tokenizer_class": "CLIPTokenizer"})
    assert "read for RobertaTokenizer and GPT2Tokenizer, not for CLIPTokenizer; AutoTokenizer.from_pretrained" in told


def test_the_class_may_stand_in_config_json(tmp_path: Path) -> None:
    assert "not for CLIPTokenizer" in refusal(tmp_path, config={"tokenizer_class": "CLIPTokenizer"})


def test_a_vocabulary_of_no_known_family_is_refused(tmp_path: Path) -> None:
    written(tmp_path, {})
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(StageError, match="not for a tokenizer that no file names"):
        byte_level.tokenizer_json(tmp_path)


def test_a_beginning_that_is_added_to_every_text_is_refused(tmp_path: Path) -> None:
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}
    assert "asks for add_bos_token" in refusal(tmp_path, tokenizer_config=config)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"tokenizer_config": []}, "tokenizer_config.json holds no JSON object"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": "y"}}}, "added_tokens_decoder is no list of tokens"),
        ({"tokenizer_config": {"added_tokens_decoder": []}}, "added_tokens_decoder is no list of tokens"),
        ({"tokenizer_config": {"mask_token": 3}}, "a special token in the tokenizer's files has no text"),
        ({"tokenizer_config": {"cls_token": None}}, "a special token in the tokenizer's files has no text"),
        ({"special_tokens_map": {"additional_special_tokens": [None]}}, "a special token in the tokenizer's files"),
        ({"added_tokens": {"<x>": "1"}}, "added_tokens.json gives a token something that is no number"),
        ({"vocab": {"a": True}}, "vocab.json gives a token something that is no number"),
    ],
)
def test_damaged_files_are_refused_by_name(files: dict[str, Any], told: str, tmp_path: Path) -> None:
    assert told in refusal(tmp_path, **files)


@pytest.mark.parametrize(
    ("merges", "told"),
    [
        (b"#version: 0.2\nd e\nd e f\n", "merges.txt has a line that is no pair: 'd e f'"),
        (b"#version: 0.2\nd e\n\ni n\n", "merges.txt has an empty line between its pairs"),
        (b"#version: 0.2\n\xff\xfe\n", "merges.txt is no UTF-8 text"),
    ],
)
def test_damaged_merges_are_refused(merges: bytes, told: str, tmp_path: Path) -> None:
    written(tmp_path, {})
    (tmp_path / "merges.txt").write_bytes(merges)
    with pytest.raises(StageError, match=re.escape(told)):
        byte_level.tokenizer_json(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["<s>", "<x>", "", "RobertaTokenizer"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["content", "0", "lstrip"]), inner),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["tokenizer_class", "added_tokens_decoder", "additional_special_tokens", "mask_token", "sep_token", "<x>"]
)


@given(config=st.dictionaries(KEYS, VALUES), special=st.dictionaries(KEYS, VALUES), added=st.dictionaries(KEYS, VALUES))
@settings(max_examples=200, deadline=None)
def test_settings_of_any_form_make_a_tokenizer_or_an_error_of_ours(config: Any, special: Any, added: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        files = {"tokenizer_config": config, "special_tokens_map": special, "added_tokens": added}
        folder = written(Path(name), {f"{stem}.json": content for stem, content in files.items()})
        try:
            text = byte_level.tokenizer_json(folder)
        except StageError:
            return
        assert Tokenizer.from_str(text).encode("a").ids


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    files = RECORDED["cases"]["extra tokens with flags, numbered"]["files"]
    first, second = (byte_level.tokenizer_json(written(tmp_path / name, files)) for name in ("a", "b"))
    assert first == second
