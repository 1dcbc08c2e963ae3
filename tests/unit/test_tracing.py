"""tracing.py: what a task feeds to each graph, as it was fed, and what came out of it."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper

from modelkit import graphs, kinds, runtime, tracing
from modelkit.errors import CheckError, StageError
from modelkit.graphs import MODEL, pieces
from modelkit.images import DATA_URL
from modelkit.vocabulary import Subject
from stand_ins.pictures import picture
from subjects import drawn, good, info, pictures
from writers import LLAMA, T5, learned

VECTOR = "sentence_embedding"
TEXTS = ["the cat sat", "a dog ran under the tree", "bird"]


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def feeds_of(subject: Subject, texts: list[str]) -> dict[str, list[tracing.Fed]]:
    return tracing.feeds(subject.reference.folder, subject.manifest.task, texts)


def recorders(folder: Path) -> tracing.Recorders:
    return tracing.Recorders(runtime.Sessions(graphs.parts(folder), sparing=True))


@pytest.fixture
def two(tmp_path: Path) -> tracing.Recorder:
    """A graph that gives `x` turned round, as `one`, and then as it is, as `other`."""
    nodes = [helper.make_node("Neg", ["x"], ["one"]), helper.make_node("Identity", ["x"], ["other"])]
    made = drawn(tmp_path, nodes, [info("x")], [info("one"), info("other")])
    return tracing.Recorder(runtime.Session(made.folder / MODEL))


def image(folder: Path) -> str:
    picture("RGB", 40, 40).save(folder / "one.png")
    return f"{DATA_URL}png;base64,{b64encode((folder / 'one.png').read_bytes()).decode()}"


# What is fed


def test_each_text_is_one_run_of_its_own_length(subject):
    found = feeds_of(subject, TEXTS)
    assert [*found] == ["model"]
    # A word is a token, and two special ones stand around each text; the task takes the short ones first.
    assert [one.feed["input_ids"].shape for one in found["model"]] == [(1, 3), (1, 5), (1, 8)]
    assert {*found["model"][0].feed} == {*runtime.Session(graphs.parts(subject.reference.folder)["model"]).inputs}


def test_the_output_that_the_task_reads_is_kept_with_its_value(subject):
    opened = kinds.load("tasks", subject.manifest.task.kind).open_(
        subject.reference.folder, recorders(subject.reference.folder), subject.manifest.task.options
    )
    for text, row in zip(TEXTS, opened.outputs(TEXTS, batch_size=1), strict=True):
        [one] = feeds_of(subject, [text])["model"]
        assert one.output == VECTOR
        assert np.array_equal(one.exact, row[None])


@pytest.mark.parametrize("name", [LLAMA, T5])
def test_what_is_recorded_gives_the_same_once_more(tmp_path_factory, name):
    # A buffer that the task fills anew after each run would have overwritten what was fed.
    subject = learned(tmp_path_factory.getbasetemp(), name)
    recorded = recorders(subject.reference.folder)
    opened = kinds.load("tasks", subject.manifest.task.kind).open_(
        subject.reference.folder, recorded, subject.manifest.task.options
    )
    opened.write([row["text"] for row in subject.corpus[:2]], max_tokens=4, temperature=0)
    fed = recorded["model"].fed
    assert len(fed) > 3
    for one in fed:
        [again] = recorded["model"].session.run(one.feed, [one.output])
        assert np.array_equal(again, one.exact)


def test_a_part_that_no_text_reaches_has_no_runs_and_is_not_named(tmp_path_factory, tmp_path):
    subject = pictures(tmp_path_factory.getbasetemp())
    assert [*feeds_of(subject, TEXTS)] == ["text_model"]
    both = feeds_of(subject, [*TEXTS, image(tmp_path)])
    assert {part: len(fed) for part, fed in both.items()} == {"text_model": 3, "vision_model": 1}
    assert both["vision_model"][0].output == "image_embeds"


def test_no_texts_are_no_runs(subject):
    assert feeds_of(subject, []) == {}


def test_a_folder_without_a_model_is_refused(subject, tmp_path):
    with pytest.raises(StageError):
        tracing.feeds(tmp_path, subject.manifest.task, TEXTS)


# One session, recorded


def test_the_output_asked_for_first_is_the_one_that_is_kept(two):
    x = np.float32([[1, 2, 3, 4]])
    given_ = two.run({"x": x}, ["other", "one"])
    assert [one.tolist() for one in given_] == [x.tolist(), (-x).tolist()]
    [fed] = two.fed
    assert (fed.output, fed.exact.tolist()) == ("other", x.tolist())


def test_without_a_wish_it_is_the_graphs_first_output(two):
    x = np.float32([[1, 2, 3, 4]])
    assert len(two.run({"x": x})) == 2
    assert (two.fed[0].output, two.fed[0].exact.tolist()) == ("one", (-x).tolist())


def test_a_feed_that_is_changed_afterwards_stays_as_it_was_fed(two):
    feed = {"x": np.zeros((1, 4), np.float32)}
    two.run(feed)
    feed["x"] = np.ones((1, 4), np.float32)
    assert not two.fed[0].feed["x"].any()


def test_a_run_that_fails_is_not_recorded(two):
    with pytest.raises(CheckError):
        two.run({"x": np.zeros((1, 5), np.float32)})
    assert two.fed == []


def test_a_recorder_tells_what_its_session_tells(two):
    assert (two.inputs, two.outputs) == (two.session.inputs, two.session.outputs)
    with pytest.raises(AttributeError):
        _ = two.nothing


# The parts of a model


def test_parts_are_those_of_the_model_and_each_has_one_recorder(tmp_path_factory):
    made = recorders(pictures(tmp_path_factory.getbasetemp()).reference.folder)
    assert ([*made], len(made)) == (["text_model", "vision_model"], 2)
    assert made["text_model"] is made["text_model"]
    assert [*made.recorders] == ["text_model"]
    with pytest.raises(StageError, match="the model has no part 'other'"):
        made["other"]


# Branches


def test_a_merged_model_takes_its_first_branch_for_a_text_and_the_other_for_what_follows(tmp_path_factory):
    subject = learned(tmp_path_factory.getbasetemp(), T5)
    [first] = feeds_of(subject, ["def f(): pass"])["model"]
    assert pieces.branches(first.feed) == {"use_cache_branch": False}
    assert pieces.branches({**first.feed, "use_cache_branch": np.array([True])}) == {"use_cache_branch": True}


def test_a_model_without_branches_has_none(subject):
    assert pieces.branches(feeds_of(subject, TEXTS)["model"][0].feed) == {}


@given(
    asked=st.dictionaries(st.sampled_from("abc"), st.booleans()),
    axes=st.integers(0, 3),
    mask=arrays.arrays(np.bool_, st.integers(2, 5)),
    number=st.integers(0, 1),
)
def test_what_an_if_may_ask_is_a_bool_of_one_element_whatever_its_axes(asked, axes, mask, number):
    feed: dict[str, Any] = {name: np.full((1,) * axes, value) for name, value in asked.items()}
    found = pieces.branches({**feed, "mask": mask, "number": np.array([number]), "empty": np.zeros(0, bool)})
    assert found == asked
    assert all(type(value) is bool for value in found.values())
