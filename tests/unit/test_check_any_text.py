"""Any text: a model that answers every text with a usable row passes, and one that breaks for a single kind of text is
found, with the call that shows it.

Two of the four outcomes have no test. The check is never skipped: every task says what it gives, and reads texts. And
it can always run: all it needs is the artifact, and an artifact that cannot be used fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelkit import model, texts
from modelkit.checks import any_text
from modelkit.vocabulary import Subject, Verdict
from subjects import copied, good, learned, redrawn

Edit = Callable[[onnx.ModelProto], None]
OUTPUT = "sentence_embedding"


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return replace(good(tmp_path_factory.getbasetemp()), examples=10)


def verdict_of(subject: Subject, **limits: float) -> Verdict:
    return any_text.check(subject, any_text.Options(**limits))


def built(subject: Subject, edit: Edit, folder: Any) -> Subject:
    """The subject whose graph was built with a fault."""
    made = redrawn(copied(subject, folder / "spoiled"), edit)
    return replace(made, open=lambda artifact, threads=None: model.load(artifact.folder))


def stored(made: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> None:
    """Change one tensor of the graph."""
    tensor = next(one for one in made.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def behind(made: onnx.ModelProto, *nodes: Any, **constants: Any) -> None:
    """Put nodes between what was the output, now `before`, and the output."""
    for node in made.graph.node:
        node.output[:] = ["before" if name == OUTPUT else name for name in node.output]
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())


def test_a_good_artifact_passes_and_says_what_was_tried(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.worst) == ("passed", ())
    assert verdict.measured["normalized"]
    assert verdict.measured["longest"] == subject.manifest.task.options.text.max_tokens
    assert verdict.measured["rows"] > len(texts.ODD) + len(any_text.LENGTHS)


def test_a_table_of_positions_that_ends_before_the_longest_text_fails(subject, tmp_path):
    spoiled = built(
        subject,
        lambda made: stored(made, "embeddings.position_embeddings.weight", lambda table: table[:31]),
        tmp_path,
    )
    verdict = verdict_of(spoiled)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("the model does not run (")
    assert f"load(folder).outputs(['{'a ' * 31}'], batch_size=1)" in verdict.worst[0]["again"]


def test_the_call_that_is_told_shows_the_fault(subject, tmp_path):
    spoiled = built(
        subject,
        lambda made: stored(made, "embeddings.position_embeddings.weight", lambda table: table[:31]),
        tmp_path,
    )
    call = verdict_of(spoiled).worst[0]["again"]
    with pytest.raises(Exception, match="onnxruntime could not run the model"):
        eval(call, {"load": model.load, "folder": spoiled.artifact.folder})
    assert eval(call, {"load": model.load, "folder": subject.artifact.folder}).shape[1] == 32


def test_a_token_whose_row_is_not_a_number_fails_though_no_text_of_the_corpus_has_it(subject, tmp_path):
    unknown = 1

    def poison(table: Any) -> Any:
        table[unknown] = np.nan
        return table

    spoiled = built(subject, lambda made: stored(made, "embeddings.word_embeddings.weight", poison), tmp_path)
    assert np.isfinite(spoiled.outputs(spoiled.artifact)).all()
    verdict = verdict_of(spoiled)
    assert verdict.outcome == "failed"
    assert "1 of 1 rows are not finite" in verdict.sentence
    assert 0 < len(verdict.worst) <= 5


def test_a_graph_that_has_kept_the_length_of_its_example_fails(subject, tmp_path):
    def keep(made: onnx.ModelProto) -> None:
        for node in made.graph.node:
            node.input[:] = ["kept" if name == "input_ids" else name for name in node.input]
        made.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 8), np.int64), "example"))
        made.graph.node.insert(0, helper.make_node("Add", ["input_ids", "example"], ["kept"]))

    assert "does not run" in verdict_of(built(subject, keep, tmp_path)).sentence


def test_rows_that_are_not_normalized_fail_where_the_manifest_says_they_are(subject, tmp_path):
    def stretch(made: onnx.ModelProto) -> None:
        behind(made, helper.make_node("Mul", ["before", "factor"], [OUTPUT]), factor=np.float32(1.01))

    spoiled = built(subject, stretch, tmp_path)
    assert "a row has the length 1.01, 0.01 from 1 (limit 0.001)" in verdict_of(spoiled).sentence
    text = replace(spoiled.manifest.task.options.text, normalize=False)
    task = replace(spoiled.manifest.task, options=replace(spoiled.manifest.task.options, text=text))
    assert verdict_of(replace(spoiled, manifest=replace(spoiled.manifest, task=task))).outcome == "passed"


def test_rows_that_hang_on_their_place_in_the_batch_fail(subject, tmp_path):
    def add_up(made: onnx.ModelProto) -> None:
        behind(made, helper.make_node("CumSum", ["before", "axis"], [OUTPUT]), axis=np.int64(0))

    spoiled = built(subject, add_up, tmp_path)
    verdict = verdict_of(spoiled, norm_error=1e9)
    assert verdict.outcome == "failed"
    assert "the first text, given twice, gets two rows" in verdict.sentence
    # Two texts, and the first of them once more.
    assert "batch_size=3)" in verdict.worst[0]["again"]
    rows = eval(verdict.worst[0]["again"], {"load": model.load, "folder": spoiled.artifact.folder})
    assert abs(rows[0] - rows[-1]).max() > 1e-4 * abs(rows[0]).max()


def test_a_text_that_only_hypothesis_draws_is_found_and_made_small(subject):
    right = subject.open(subject.artifact)

    def outputs(lines: list[str], batch_size: int = 32) -> Any:
        rows = right.outputs(lines, batch_size=batch_size)
        rows[["\u0308" in line for line in lines]] = np.inf
        return rows

    found = replace(subject, examples=300, open=lambda artifact, threads=None: SimpleNamespace(outputs=outputs))
    assert not any("\u0308" in line for line in texts.ODD)
    assert verdict_of(found).worst[0]["again"] == r"load(folder).outputs(['\u0308'], batch_size=1)"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda rows: rows[:, :31], "the rows are float32[1, 31], not float32[1, 32]"),
        (lambda rows: rows.astype(np.float16), "the rows are float16[1, 32], not float32[1, 32]"),
        (lambda rows: rows[:0], "the rows are float32[0, 32], not float32[1, 32]"),
    ],
)
def test_rows_of_another_shape_or_type_than_the_graph_declares_fail(subject, wrong, sentence):
    right = subject.open(subject.artifact)
    opened = SimpleNamespace(outputs=lambda lines, batch_size=32: wrong(right.outputs(lines, batch_size=batch_size)))
    assert sentence in verdict_of(replace(subject, open=lambda artifact, threads=None: opened)).sentence


@pytest.mark.parametrize("name", ["tokenizer.json", "model.onnx"])
def test_a_folder_that_cannot_be_used_fails(subject, tmp_path, name):
    spoiled = copied(subject, tmp_path / "spoiled")
    (spoiled.artifact.folder / name).write_text("{")
    verdict = verdict_of(replace(spoiled, open=lambda artifact, threads=None: model.load(artifact.folder)))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("the finished folder cannot be used: ")


@pytest.mark.parametrize("examples", [5, any_text.PATIENT])
def test_texts_of_a_long_window_are_tried_up_to_its_end_by_the_patient_alone(tmp_path_factory, examples):
    subject = replace(learned(tmp_path_factory.getbasetemp(), "llama-files"), examples=examples)
    verdict, most = verdict_of(subject), subject.manifest.task.options.text.max_tokens
    assert most > any_text.WINDOW
    assert verdict.outcome == "passed"
    assert verdict.measured["longest"] == (any_text.WINDOW if examples < any_text.PATIENT else most)
