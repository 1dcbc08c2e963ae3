"""Any prompt: whatever a model is asked, it answers, and the same each time; where it does not, the call is told.

Two of the four outcomes have no test. The check is never skipped: it is planned only for tasks that write text. And it
can always run: all it needs is the artifact, and an artifact that cannot be used fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelkit import conformance, model, texts
from modelkit.checks import any_prompt
from modelkit.errors import InputError, ModelkitError
from modelkit.generation import answers
from modelkit.graphs import parts
from modelkit.tasks import text_generation
from modelkit.vocabulary import Subject, Verdict
from subjects import copied, good, learned


@pytest.fixture(params=["llama-files", "t5-summaries"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return replace(learned(tmp_path_factory.getbasetemp(), request.param), examples=5)


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return replace(learned(tmp_path_factory.getbasetemp(), "llama-files"), examples=5)


def verdict_of(subject: Subject) -> Verdict:
    return any_prompt.check(subject, any_prompt.Options())


def typed(line: str, subject: Subject) -> Any:
    """What the line that is to show a fault gives whoever types it: two answers, the first prompt's, its pieces."""
    return eval(line, {"load": model.load, "folder": subject.artifact.folder})


def built(subject: Subject, edit: Callable[[onnx.ModelProto], None], folder: Path) -> Subject:
    """The subject whose graph was built with a fault."""
    spoiled = copied(subject, folder / "spoiled")
    [path] = parts(spoiled.artifact.folder).values()
    proto = onnx.load(path)
    edit(proto)
    onnx.save(proto, path)
    return replace(spoiled, open=lambda artifact, threads=None: model.load(artifact.folder))


def test_a_good_artifact_passes_and_says_what_was_tried(either):
    verdict = verdict_of(either)
    assert (verdict.outcome, verdict.worst) == ("passed", ())
    assert verdict.measured["answers"] > len(texts.ODD) + either.examples
    # Nothing at all is no prompt.
    assert verdict.measured["refused"] > 0


def test_it_is_planned_for_the_tasks_that_write_text_and_for_no_others(either, tmp_path_factory):
    assert "any-prompt" in conformance.plan(either.manifest)
    assert "any-prompt" not in conformance.plan(good(tmp_path_factory.getbasetemp()).manifest)


def test_a_graph_that_answers_by_chance_fails(subject, tmp_path):
    def shake(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            node.output[:] = ["before" if name == "logits" else name for name in node.output]
        noise = helper.make_node("RandomNormalLike", ["before"], ["noise"], scale=1e6)
        proto.graph.node.extend([noise, helper.make_node("Add", ["before", "noise"], ["logits"])])

    shaken = built(subject, shake, tmp_path)
    verdict = verdict_of(shaken)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("the answers are [")
    assert 0 < len(verdict.worst) <= 5
    for found in verdict.worst:
        first, second, *_ = typed(found["again"], shaken)
        assert first != second


def test_a_graph_that_has_kept_the_length_of_its_example_fails(subject, tmp_path):
    def keep(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            node.input[:] = ["kept" if name == "input_ids" else name for name in node.input]
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 8), np.int64), "example"))
        proto.graph.node.insert(0, helper.make_node("Add", ["input_ids", "example"], ["kept"]))

    kept = built(subject, keep, tmp_path)
    verdict = verdict_of(kept)
    assert verdict.sentence.startswith("the model does not run (")
    for found in verdict.worst:
        with pytest.raises(ModelkitError) as caught:
            typed(found["again"], kept)
        assert found["reason"] == f"the model does not run ({caught.value.message})"


def test_the_line_has_no_prompt_that_was_refused_and_none_that_is_cut_short(subject):
    long = "".join(f"{number} " for number in range(60))
    line = any_prompt._Answers(subject).again((["", long, "a" * 500], 3, 0.0))
    asked: list[Any] = []
    note = SimpleNamespace(generate=lambda p, **_: asked.append(p), stream=lambda p, **_: asked.append(p) or [])
    eval(line, {"load": lambda folder: note, "folder": None})
    assert asked == [[long], [long], long, long]


def test_a_seed_that_is_ignored_fails(either, monkeypatch):
    sampler, numbers = answers.Sampler, count()
    monkeypatch.setattr(answers, "Sampler", lambda settings, seed: sampler(settings, next(numbers)))
    verdict = verdict_of(either)
    assert verdict.outcome == "failed"
    assert "temperature=0.0" not in str(verdict.worst)


def test_a_stream_that_loses_its_last_piece_fails(either, monkeypatch):
    stream = answers.Answers.stream
    monkeypatch.setattr(answers.Answers, "stream", lambda *arguments: iter([*stream(*arguments)][:-1]))
    verdict = verdict_of(either)
    assert ", its pieces are [" in verdict.sentence
    for found in verdict.worst:
        *_, alone, pieces = typed(found["again"], either)
        assert "".join(pieces) != alone


def test_half_a_character_in_an_answer_fails(either, monkeypatch):
    task = type(either.open(either.artifact))
    given = task._all
    monkeypatch.setattr(task, "_all", lambda *arguments: [text + "\ud83d" for text in given(*arguments)])
    assert " prompts are answered with [" in verdict_of(either).sentence


def test_an_answer_too_few_fails(either, monkeypatch):
    task = type(either.open(either.artifact))
    given = task._all
    monkeypatch.setattr(task, "_all", lambda *arguments: given(*arguments)[:1])
    assert verdict_of(either).sentence.startswith(f"{any_prompt.TOGETHER - 1} prompts are answered with [")


def test_a_prompt_that_is_read_but_not_answered_fails_with_the_call_that_shows_it(subject, monkeypatch):
    generate = text_generation.TextGenerator.generate

    def refuse(self: Any, prompts: Any, **wishes: Any) -> Any:
        if "\ufffd" in prompts:
            raise InputError("ask me something else")
        return generate(self, prompts, **wishes)

    monkeypatch.setattr(text_generation.TextGenerator, "generate", refuse)
    [found] = verdict_of(subject).worst
    assert found["reason"] == "the model does not run (ask me something else)"
    with pytest.raises(InputError, match="ask me something else"):
        typed(found["again"], subject)


def test_the_longest_prompt_that_is_taken_is_asked(subject, monkeypatch):
    lengths: list[int] = []
    given = answers.Answers.all

    def note(self: Any, prompts: Any, *more: Any) -> Any:
        lengths.extend(map(len, prompts))
        return given(self, prompts, *more)

    monkeypatch.setattr(answers.Answers, "all", note)
    assert verdict_of(subject).outcome == "passed"
    assert max(lengths) in {any_prompt.SHORT - 1, any_prompt.SHORT}


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_folder_that_cannot_be_used_fails(either, tmp_path, name):
    spoiled = copied(either, tmp_path / "spoiled")
    (spoiled.artifact.folder / name).write_text("{")
    assert verdict_of(spoiled).sentence.startswith("the finished folder cannot be used: ")
