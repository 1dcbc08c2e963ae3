"""tokenizer.py: tokenizer.json as it is, or made of older files; test_byte_level.py has what is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import stand_ins
from modelkit.errors import StageError
from modelkit.tokenizer import padded, read_tokenizer, refuse_stranger, write_tokenizer
from stand_ins.t5 import legacy_tokenizer

SIZE = 5 + 256 + 5 + 3
"""Ids of the stand-in: special tokens, bytes, merges, extra tokens."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def refusal(folder: Path, rows: int | None = None) -> str:
    with pytest.raises(StageError) as caught:
        refuse_stranger(folder, rows)
    return str(caught.value)


def test_a_tokenizer_json_is_copied_byte_for_byte(source: Path, tmp_path: Path) -> None:
    stand_ins.tokenizer().save(str(source / "tokenizer.json"))
    legacy_tokenizer(source)
    write_tokenizer(source, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_older_files_become_a_tokenizer_json(source: Path, tmp_path: Path) -> None:
    legacy_tokenizer(source)
    write_tokenizer(source, tmp_path)
    made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert made.encode("def a").tokens == ["<s>", "def", "Ġa", "</s>"]
    assert made.token_to_id("<extra_id_0>") == SIZE - 1


def test_a_source_without_any_tokenizer_gets_none(source: Path, tmp_path: Path) -> None:
    write_tokenizer(source, tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()


def test_older_files_belong_to_a_table_of_their_size(source: Path) -> None:
    legacy_tokenizer(source)
    refuse_stranger(source, SIZE)
    assert f"knows ids up to {SIZE - 1}, the embedding table ends at {SIZE - 2}" in refusal(source, SIZE - 1)


def test_merges_of_tokens_that_the_vocabulary_lacks_are_refused(source: Path) -> None:
    legacy_tokenizer(source)
    (source / "merges.txt").write_text("#version: 0.2\nd q\n")
    assert "vocab.json and merges.txt make no tokenizer" in refusal(source)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "spiece.model", "vocab.txt", "merges.txt"])
def test_another_form_is_refused_with_how_to_convert_it(name: str, source: Path) -> None:
    (source / name).write_bytes(b"\x0a")
    told = refusal(source)
    assert told.startswith(f"no tokenizer.json in the source, but {name}; AutoTokenizer.from_pretrained(FOLDER)")


def test_a_vocabulary_without_its_merges_is_told(source: Path) -> None:
    (source / "vocab.json").write_text("{}")
    told = "no tokenizer.json in the source, but vocab.json; add merges.txt to `source.files`, which belongs to it"
    assert refusal(source) == told


def test_nothing_at_all_is_told_as_before(source: Path) -> None:
    assert refusal(source) == "no tokenizer.json in the source; add it to `source.files`"


def test_a_finished_folder_without_a_tokenizer_is_incomplete(tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        read_tokenizer(tmp_path / "tokenizer.json")
    assert str(caught.value) == f"{tmp_path}: tokenizer.json is missing; the folder is incomplete: build it again"


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5), st.integers(0, 9), st.booleans())
def test_padding_keeps_every_text_at_its_side_and_the_mask_says_where(
    batch: list[list[int]], pad: int, left: bool
) -> None:
    ids, mask = padded(batch, pad, left=left)
    longest = max(1, *map(len, batch))
    assert ids.shape == mask.shape == (len(batch), longest)
    assert ids.dtype == mask.dtype == np.int64
    for tokens, row, kept in zip(batch, ids, mask, strict=True):
        fill = longest - len(tokens)
        assert row.tolist() == ([pad] * fill + tokens if left else tokens + [pad] * fill)
        assert kept.tolist() == ([0] * fill + [1] * len(tokens) if left else [1] * len(tokens) + [0] * fill)
