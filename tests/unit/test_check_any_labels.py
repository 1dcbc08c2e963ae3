"""Any labels: whatever they are called, they get scores; a score that is none, or hangs on its place, is found.

Two of the four outcomes have no test. The check is never skipped: it is planned only for tasks that take labels. And it
can always run: all it needs is the artifact, and an artifact that cannot be used fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelkit import conformance, graphs, model, runtime
from modelkit.checks import any_labels
from modelkit.errors import InputError
from modelkit.tasks import zero_shot_classification as task
from modelkit.tokenizer import read_tokenizer
from modelkit.vocabulary import Subject, Verdict
from subjects import copied, good, learned, redrawn


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return replace(learned(tmp_path_factory.getbasetemp(), "deberta-entailment"), examples=10)


def verdict_of(subject: Subject, **limits: float) -> Verdict:
    return any_labels.check(subject, any_labels.Options(**limits))


def built(subject: Subject, edit: Callable[[onnx.ModelProto], None], folder: Path) -> Subject:
    """The subject whose graph was built with a fault."""
    made = redrawn(copied(subject, folder / "spoiled"), edit)
    return replace(made, open=lambda artifact, threads=None: model.load(artifact.folder))


def test_a_good_artifact_passes_and_says_what_was_tried(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.worst) == ("passed", ())
    assert verdict.measured["sum_error"] < 1e-12
    assert verdict.measured["scores"] > sum(len(texts) * len(labels) for texts, labels, _ in any_labels.NAMED)


def test_the_order_error_is_the_largest_difference_of_a_label_and_not_of_neighbours(subject):
    scores = iter([0.1000, 0.1018, 0.1009, 0.1027])
    scored = [[SimpleNamespace(label="money", score=next(scores)) for _ in range(2)] for _ in range(2)]
    looked = any_labels._Scores(subject, any_labels.Options())
    assert "'money' scores 0.0027 more" in looked._moved(*scored)


def test_it_is_planned_for_the_tasks_that_take_labels_and_for_no_others(subject, tmp_path_factory):
    assert "any-labels" in conformance.plan(subject.manifest)
    assert "any-labels" not in conformance.plan(good(tmp_path_factory.getbasetemp()).manifest)


def test_a_token_whose_row_is_not_a_number_fails(subject, tmp_path):
    unknown = read_tokenizer(subject.artifact.folder / "tokenizer.json").token_to_id("[UNK]")

    def poison(made: onnx.ModelProto) -> None:
        table = next(one for one in made.graph.initializer if one.name.endswith("word_embeddings.weight"))
        values = numpy_helper.to_array(table).copy()
        values[unknown] = np.nan
        table.CopyFrom(numpy_helper.from_array(values, table.name))

    verdict = verdict_of(built(subject, poison, tmp_path))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("a score is nan: load(folder).classify([")


def test_scores_that_hang_on_the_place_among_the_labels_fail(subject, tmp_path):
    def add_up(made: onnx.ModelProto) -> None:
        for node in made.graph.node:
            node.output[:] = ["before" if name == "logits" else name for name in node.output]
        made.graph.initializer.append(numpy_helper.from_array(np.int64(0), "axis"))
        made.graph.node.append(helper.make_node("CumSum", ["before", "axis"], ["logits"]))

    verdict = verdict_of(built(subject, add_up, tmp_path))
    assert verdict.outcome == "failed"
    assert " more in another place: load(folder).classify([" in verdict.sentence


def test_scores_that_do_not_sum_to_one_fail(subject, monkeypatch):
    softmax = task._softmax
    monkeypatch.setattr(task, "_softmax", lambda logits: softmax(logits) * 0.99)
    assert verdict_of(subject).sentence.startswith("the scores sum to 0.99")


def test_a_score_above_one_fails(subject, monkeypatch):
    monkeypatch.setattr(task, "_softmax", np.exp)
    assert verdict_of(subject).outcome == "failed"


def test_labels_that_are_not_ranked_fail(subject, monkeypatch):
    ranked = task._ranked
    monkeypatch.setattr(task, "_ranked", lambda labels, row: ranked(labels, row)[::-1])
    assert verdict_of(subject).sentence.startswith("the labels are not in the order of their scores: ")


def test_a_label_that_is_lost_because_it_is_there_twice_fails(subject, monkeypatch):
    ranked = task._ranked
    monkeypatch.setattr(
        task, "_ranked", lambda labels, row: list({one.label: one for one in ranked(labels, row)}.values())
    )
    assert verdict_of(subject).sentence == (
        "2 labels come back as 1: load(folder).classify(['a'], ['a', 'a'], multi_label=False)"
    )


def test_an_empty_label_that_is_refused_fails(subject, monkeypatch):
    classify = task.Classifier.classify

    def refuse(self: Any, texts: Any, labels: Any, **more: Any) -> Any:
        if self._session.__class__.__name__ == "Session" and "" in labels:
            raise InputError("a label without a name")
        return classify(self, texts, labels, **more)

    monkeypatch.setattr(task.Classifier, "classify", refuse)
    assert verdict_of(subject).sentence.startswith("the model does not run (a label without a name): ")


def test_labels_that_leave_no_room_for_a_text_are_left_out_and_counted(subject):
    text = replace(subject.manifest.task.options.text, max_tokens=16)
    options = replace(subject.manifest.task.options, text=text)
    verdict = verdict_of(
        replace(
            subject,
            open=lambda artifact, threads=None: task.open_(
                artifact.folder, runtime.Sessions(graphs.parts(artifact.folder)), options
            ),
        )
    )
    assert verdict.outcome == "passed"
    assert verdict.measured["left_out"] > 0


@pytest.mark.parametrize("name", ["tokenizer.json", "model.onnx", "config.json"])
def test_a_folder_that_cannot_be_used_fails(subject, tmp_path, name):
    spoiled = copied(subject, tmp_path / "spoiled")
    (spoiled.artifact.folder / name).write_text("{")
    assert verdict_of(spoiled).sentence.startswith("the finished folder cannot be used: ")
