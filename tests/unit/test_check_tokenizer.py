"""Tokenizer: the source's ids for every text pass, and one token that is another, or fed otherwise, fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer

import stand_ins
from modelkit import byte_level, texts
from modelkit.checks import tokenizer
from modelkit.errors import CheckError, InputError
from modelkit.tasks import feature_extraction
from modelkit.tokenizer import padded, write_tokenizer
from modelkit.vocabulary import Choice, Subject, Verdict
from stand_ins.t5 import legacy_tokenizer
from subjects import artifact, copied, fake, good


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return replace(good(tmp_path_factory.getbasetemp()), examples=20)


def verdict_of(subject: Subject) -> Verdict:
    return tokenizer.check(subject, tokenizer.Options())


def spoiled(subject: Subject, folder: Path, edit: Callable[[dict[str, Any]], Any]) -> Subject:
    """The subject whose finished folder was built with another tokenizer.json."""
    made = copied(subject, folder / "spoiled")
    path = made.artifact.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return made


def legacy(subject: Subject, folder: Path) -> Subject:
    """The subject with the tokenizer that a source of older files has, made as the last stage makes it."""
    source = folder / "source"
    source.mkdir()
    legacy_tokenizer(source)
    made = copied(subject, folder / "made")
    write_tokenizer(source, made.artifact.folder)
    return replace(made, source=artifact(source))


def test_a_good_artifact_passes_and_says_what_was_compared(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.worst) == ("passed", ())
    assert verdict.measured["tokens"] == len(
        Tokenizer.from_file(str(subject.source.folder / "tokenizer.json")).get_vocab()
    )
    assert verdict.measured["fed"] > len(texts.ODD) + len(subject.corpus)
    assert verdict.measured["cut"] > 0
    assert verdict.measured["refused"] == verdict.measured["not_ids"] == 0


def test_two_ids_that_changed_places_fail(subject, tmp_path):
    def swap(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]

    sentence = verdict_of(spoiled(subject, tmp_path, swap)).sentence
    assert sentence == "the token 'cat' has the id 7 here and the id 6 in the source (2 such tokens)"


def test_a_token_that_is_missing_fails(subject, tmp_path):
    made = spoiled(subject, tmp_path, lambda content: content["model"]["vocab"].pop("river"))
    assert verdict_of(made).sentence.startswith("the token 'river' has no id here and the id ")


def test_a_token_that_was_added_fails(subject, tmp_path):
    def add(content: dict[str, Any]) -> None:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        content["added_tokens"].append({"id": 60, "content": "<new>", **flags})

    verdict = verdict_of(spoiled(subject, tmp_path, add))
    assert verdict.outcome == "failed"
    assert "the token '<new>' has the id " in verdict.sentence
    assert ", in the source None" in verdict.sentence


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip", "normalized", "special"])
def test_an_added_token_with_another_flag_fails(subject, tmp_path, flag):
    made = legacy(subject, tmp_path)
    path = made.artifact.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"][-1][flag] ^= True
    path.write_text(json.dumps(content))
    assert "the added token " in verdict_of(made).sentence


@pytest.mark.parametrize("cuts", ["truncation", "padding"])
def test_settings_that_were_left_on_fail(subject, tmp_path, cuts):
    made = copied(subject, tmp_path / "spoiled")
    path = str(made.artifact.folder / "tokenizer.json")
    read = Tokenizer.from_file(path)
    read.enable_truncation(8) if cuts == "truncation" else read.enable_padding()
    read.save(path)
    verdict = verdict_of(made)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith(f"tokenizer.json has {cuts} {{")
    assert verdict.sentence.endswith("the source's off")


def test_a_lost_normalizer_fails_though_the_corpus_has_no_capitals(subject, tmp_path):
    made = spoiled(subject, tmp_path, lambda content: content.update(normalizer=None))
    assert verdict_of(made).sentence.startswith("of '")


def test_lost_special_tokens_fail_with_the_empty_text(subject, tmp_path):
    verdict = verdict_of(spoiled(subject, tmp_path, lambda content: content.update(post_processor=None)))
    made, wanted = "makes 0 tokens, from number 1 on []", "makes 2 tokens, from number 1 on [2, 3]"
    assert verdict.sentence == f"of '' the tokenizer {made}, where the source {wanted}"
    assert 0 < len(verdict.worst) <= 5
    assert verdict.worst[0]["again"] == "tokenizers.Tokenizer.from_file('tokenizer.json').encode_batch([''])"


def test_a_fault_that_only_a_long_text_shows_is_told_by_a_short_one(subject, tmp_path):
    def shorten(content: dict[str, Any]) -> None:
        lose = {"type": "Replace", "pattern": {"Regex": "a{91}"}, "content": ""}
        content["normalizer"] = {"type": "Sequence", "normalizers": [content["normalizer"], lose]}

    verdict = verdict_of(spoiled(subject, tmp_path, shorten))
    assert verdict.outcome == "failed"
    assert verdict.worst[0]["again"] == f"tokenizers.Tokenizer.from_file('tokenizer.json').encode_batch(['{'a' * 91}'])"


def test_tokens_at_other_places_fail(subject, tmp_path):
    made = legacy(subject, tmp_path)
    path = made.artifact.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"]["trim_offsets"] ^= True
    path.write_text(json.dumps(content))
    assert "the tokens stand at other places than in the source's tokenizer" in verdict_of(made).sentence


def test_a_model_that_cuts_texts_too_short_fails(subject, monkeypatch):
    class Short(feature_extraction.Embedder):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._tokenizer.enable_truncation(31)

    monkeypatch.setattr(feature_extraction, "Embedder", Short)
    assert (
        "the model is fed 31 tokens, from number 31 on [3], where it should be 32 tokens"
        in verdict_of(subject).sentence
    )


def test_a_model_that_forgets_the_prefix_fails(subject, monkeypatch):
    text = replace(subject.manifest.task.options.text, prefixes=(("query", "the "),))
    task = Choice("feature-extraction", replace(subject.manifest.task.options, text=text))
    told = replace(subject, manifest=replace(subject.manifest, task=task))
    assert verdict_of(told).outcome == "passed"
    monkeypatch.setattr(feature_extraction.Embedder, "_prefix", lambda self, kind: "")
    assert "the model is fed" in verdict_of(told).sentence


def test_a_model_that_reads_the_padding_fails(subject, monkeypatch):
    def unmasked(batch: Any, pad: int) -> Any:
        ids, mask = padded(batch, pad)
        return ids, mask * 0 + 1

    monkeypatch.setattr(feature_extraction, "padded", unmasked)
    verdict = verdict_of(subject)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("fed together, ")


def test_a_model_that_refuses_a_text_that_it_could_read_fails(subject, monkeypatch):
    embed = feature_extraction.Embedder.embed

    def refuse(self: Any, lines: Any, **more: Any) -> Any:
        if any("\0" in line for line in lines):
            raise InputError("no zeros, please")
        return embed(self, lines, **more)

    monkeypatch.setattr(feature_extraction.Embedder, "embed", refuse)
    assert verdict_of(subject).sentence == r"the model refuses '\x00', which has 3 tokens: no zeros, please"


def test_a_tokenizer_made_of_older_files_is_compared_with_what_the_library_reads_of_them(subject, tmp_path):
    verdict = verdict_of(legacy(subject, tmp_path))
    assert verdict.outcome == "passed"
    assert verdict.measured["judge"] == "vocab.json and merges.txt"
    assert verdict.measured["round_trip"] == "exact"


def test_a_merge_that_was_lost_on_the_way_fails(subject, tmp_path, monkeypatch):
    make = byte_level.tokenizer_json

    def lose(folder: Path) -> str:
        content = json.loads(make(folder))
        del content["model"]["merges"][0]
        return json.dumps(content)

    monkeypatch.setattr(byte_level, "tokenizer_json", lose)
    assert "where vocab.json and merges.txt make" in verdict_of(legacy(subject, tmp_path)).sentence


def test_a_byte_level_tokenizer_that_does_not_give_the_text_again_fails(subject, tmp_path, monkeypatch):
    made = legacy(subject, tmp_path)
    plain = Tokenizer.from_file(str(made.artifact.folder / "tokenizer.json"))
    both = tokenizer._Both(plain, plain, None)
    assert both.reason(["\u00e9\n"]) is None
    both._ours = SimpleNamespace(
        encode=plain.encode, normalizer=None, decode=lambda ids, **_: plain.decode(ids).strip()
    )
    assert both.reason(["\u00e9\n"]) == r"'\xe9\n' comes back from its tokens as '\xe9'"


def test_a_finished_folder_without_a_usable_tokenizer_fails(subject, tmp_path):
    made = copied(subject, tmp_path / "spoiled")
    (made.artifact.folder / "tokenizer.json").write_text("{")
    assert verdict_of(made).sentence.startswith("the finished folder cannot be used: tokenizer.json does not parse")


def test_a_model_without_a_tokenizer_is_skipped(tmp_path):
    verdict = verdict_of(fake(source=artifact(tmp_path)))
    assert (verdict.outcome, verdict.sentence) == ("skipped", "the source has no tokenizer to compare with")


def test_a_source_whose_tokenizer_does_not_parse_cannot_be_compared_with(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckError, match=r"the source's own tokenizer cannot be read: tokenizer.json does not parse"):
        verdict_of(fake(source=artifact(tmp_path)))


def test_texts_can_write_the_special_tokens_that_are_added_ones(subject, tmp_path):
    made = stand_ins.tokenizer()
    made.add_special_tokens(["[SEP]"])
    for folder in (tmp_path / "source", tmp_path / "finished"):
        folder.mkdir()
        made.save(str(folder / "tokenizer.json"))
    both = tokenizer._Both(made, made, None)
    assert both.facts["special_tokens_that_texts_can_write"] == ["[SEP]"]
