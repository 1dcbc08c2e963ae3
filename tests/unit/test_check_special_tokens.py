"""Special tokens: files that agree pass, one that names another id fails, and what the source contradicts itself in is
told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelkit import model
from modelkit.checks import special_tokens
from modelkit.errors import CheckError
from modelkit.graphs import MODEL
from modelkit.schemes import matmul_nbits
from modelkit.vocabulary import Subject, Verdict
from subjects import artifact, copied, fake, good, learned, pictures, redrawn

END = "<|im_end|>"


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return learned(tmp_path_factory.getbasetemp(), "llama-files")


@pytest.fixture
def made(subject: Subject, tmp_path: Path) -> Subject:
    """The subject with folders of its own, which the test may spoil."""
    source = copied(replace(subject, artifact=subject.source), tmp_path / "source").artifact
    return replace(
        copied(subject, tmp_path / "spoiled"),
        source=source,
        open=lambda artifact, threads=None: model.load(artifact.folder),
    )


def verdict_of(subject: Subject) -> Verdict:
    return special_tokens.check(subject, special_tokens.Options())


def said(folder: Path, name: str, **changes: Any) -> None:
    """Let a file of `folder` say something else; None takes a key away."""
    path = folder / name
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def everywhere(subject: Subject, name: str, **changes: Any) -> Subject:
    """The subject whose source says something else, and whose finished folder has it from there."""
    for folder in (subject.source.folder, subject.artifact.folder):
        said(folder, name, **changes)
    return subject


def tabled(subject: Subject, change: Callable[[Any], Any]) -> Subject:
    """The subject whose graph has another embedding table."""

    def edit(proto: onnx.ModelProto) -> None:
        table = next(one for one in proto.graph.initializer if one.name.endswith("embed_tokens.weight"))
        table.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(table)), table.name))

    return redrawn(subject, edit)


@pytest.mark.parametrize("name", ["deberta-entailment", "llama-files", "llama-summaries", "t5-summaries"])
@pytest.mark.parametrize("variant", ["fp32", "int8", "int4"])
def test_a_good_artifact_passes_after_every_scheme(tmp_path_factory, name, variant):
    verdict = verdict_of(learned(tmp_path_factory.getbasetemp(), name, variant))
    assert (verdict.outcome, verdict.worst) == ("passed", ())
    assert verdict.measured["claims"] > 5
    assert verdict.measured["inherited"] == []


def test_good_artifacts_whose_files_say_next_to_nothing_pass(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    assert verdict_of(good(base)).sentence == "1 claims of 1 files hold"
    assert verdict_of(pictures(base)).outcome == "passed"


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("generation_config.json", {"eos_token_id": 5}, "generation_config.json says eos_token_id 5, the source's "),
        ("generation_config.json", {"pad_token_id": None}, "generation_config.json says pad_token_id nothing, the "),
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}, "tokenizer_config.json says eos_token '<|endoftext"),
        ("config.json", {"vocab_size": 767}, "config.json says vocab_size 767, the source's 768"),
    ],
)
def test_a_file_that_says_something_else_than_the_source_fails(made, name, changes, sentence):
    said(made.artifact.folder, name, **changes)
    assert verdict_of(made).sentence.startswith(sentence)


def test_a_file_that_was_lost_on_the_way_fails(made):
    (made.artifact.folder / "tokenizer_config.json").unlink()
    verdict = verdict_of(made)
    assert verdict.outcome == "failed"
    assert f"tokenizer_config.json says eos_token nothing, the source's '{END}'" in str(verdict.worst)


def test_a_table_that_ends_before_the_last_token_fails(made):
    verdict = verdict_of(tabled(made, lambda table: table[:-1]))
    assert verdict.sentence.startswith("the embedding table has no row for 767, the tokenizer's '")
    assert "config.json says vocab_size 768, which is not the number of rows" in verdict.sentence


def test_a_table_with_more_rows_than_the_files_say_fails(made):
    longer = tabled(made, lambda table: np.concatenate([table, table[:8]]))
    assert verdict_of(longer).sentence == (
        "config.json says vocab_size 768, which is not the number of rows in the embedding table"
    )


@pytest.mark.parametrize(("size", "outcome"), [(768, "passed"), (767, "failed"), (769, "failed")])
def test_the_rows_of_a_table_whose_lookup_refuses_no_id_are_counted(made, tmp_path, size, outcome):
    subject = everywhere(made, "config.json", vocab_size=size)
    matmul_nbits.quantize(subject.artifact.folder, tmp_path, matmul_nbits.Options(block=16))
    (tmp_path / MODEL).replace(subject.artifact.folder / MODEL)
    assert verdict_of(subject).outcome == outcome


def test_a_choice_that_the_model_cannot_read_fails(made):
    def widen(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            node.output[:] = ["before" if name == "logits" else name for name in node.output]
        proto.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 3]), "more"))
        proto.graph.node.append(helper.make_node("Pad", ["before", "more"], ["logits"]))
        logits = next(one for one in proto.graph.output if one.name == "logits")
        logits.type.tensor_type.shape.dim[2].dim_value += 3

    sentence = verdict_of(redrawn(made, widen)).sentence
    assert "the model can choose 770, and the embedding table has no row for it" in sentence


def test_what_the_source_contradicts_itself_in_is_told_and_passes(made):
    verdict = verdict_of(everywhere(made, "tokenizer_config.json", unk_token="<nobody>"))
    assert verdict.outcome == "passed"
    told = "tokenizer_config.json says unk_token '<nobody>', which the tokenizer does not know"
    assert verdict.sentence.endswith(f"the source contradicts itself: {told}")


def test_an_end_that_the_model_writes_and_nobody_stops_at_fails_though_the_source_has_it(made):
    verdict = verdict_of(everywhere(made, "generation_config.json", eos_token_id=0))
    assert f"{END} (" in verdict.sentence
    assert " ends a text by the tokenizer's files, but only [0] end one here" in verdict.sentence


def test_an_end_that_is_no_token_fails_though_the_source_has_it(made):
    ends = json.loads((made.source.folder / "generation_config.json").read_text())["eos_token_id"]
    several = [*(ends if isinstance(ends, list) else [ends]), 5000]
    assert "5000 is to end a text, and is no token" in verdict_of(
        everywhere(made, "generation_config.json", eos_token_id=several)
    ).sentence  # fmt: skip


def test_a_pad_without_a_row_fails_though_the_source_has_it(made):
    verdict = verdict_of(everywhere(made, "generation_config.json", pad_token_id=768))
    assert "pad_token_id is 768, and the table ends at 767" in verdict.sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"added_tokens_decoder": {"700": {"content": END}}}, f"says added_tokens_decoder[700] '{END}', which is "),
        ({"additional_special_tokens": ["<a>"]}, "says additional_special_tokens[0] '<a>', which the tokenizer does"),
        ({"bos_token": {"content": "<a>"}}, "tokenizer_config.json says bos_token '<a>', which the tokenizer does not"),
    ],
)
def test_every_form_in_which_a_token_is_named_is_read(made, settings, sentence):
    said(made.artifact.folder, "tokenizer_config.json", **settings)
    assert sentence in str(verdict_of(made).worst)


def test_a_graph_that_does_not_run_on_what_its_task_feeds_it_fails(made):
    def keep(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            node.input[:] = ["kept" if name == "input_ids" else name for name in node.input]
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 77), np.int64), "example"))
        proto.graph.node.insert(0, helper.make_node("Add", ["input_ids", "example"], ["kept"]))

    assert verdict_of(redrawn(made, keep)).sentence == (
        "the finished folder cannot be used: the graph does not run on what its task feeds it"
    )


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", MODEL])
def test_a_folder_that_cannot_be_used_fails(made, name):
    (made.artifact.folder / name).write_text("{")
    assert verdict_of(made).sentence.startswith("the finished folder cannot be used: ")


def test_a_model_without_a_tokenizer_is_skipped(tmp_path):
    verdict = verdict_of(fake(source=artifact(tmp_path)))
    assert verdict.outcome == "skipped"
    assert verdict.sentence == "the source has no tokenizer to hold other files against"


def test_a_source_whose_files_cannot_be_read_is_no_measure(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckError, match=r"the source's own files cannot be read: tokenizer\.json does not parse"):
        verdict_of(fake(source=artifact(tmp_path)))
