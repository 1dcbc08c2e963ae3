"""What a task feeds is heard without running a model, and is what the model would have been fed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from modelkit import model
from modelkit.errors import StageError
from modelkit.feeds import Listener, Notes
from modelkit.graphs import parts
from modelkit.runtime import Session
from modelkit.tokenizer import read_tokenizer
from subjects import copied, drawn, good, info


@pytest.fixture
def subject(tmp_path_factory):
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture
def listener(subject):
    return Listener(subject.artifact.folder, subject.manifest.task)


def test_the_ids_of_a_text_are_the_tokenizers_without_padding(subject, listener):
    lines = ["the cat", "a dog ran under the tree", ""]
    read = read_tokenizer(subject.artifact.folder / "tokenizer.json")
    assert sorted(listener.ids(lines)) == sorted(tuple(read.encode(line).ids) for line in lines)


def test_the_feeds_are_those_of_the_loaded_model(subject, listener):
    lines = ["the cat", "a dog ran under the tree"]
    heard, loaded = [], model.load(subject.artifact.folder)
    run = loaded._session.run
    loaded._session = SimpleNamespace(
        inputs=loaded._session.inputs, run=lambda feed, outputs: heard.append(feed) or run(feed, outputs)
    )
    loaded.outputs(lines)
    [feed] = listener.feeds(lambda other: other.outputs(lines))
    assert {name: array.tolist() for name, array in feed.arrays.items()} == {
        name: array.tolist() for name, array in heard[0].items()
    }
    assert feed.reads


def test_outputs_have_the_shape_and_type_that_the_model_gives(subject, listener):
    lines = ["the cat", "a dog ran under the tree", "a"]
    given, real = listener.model.outputs(lines), subject.open(subject.artifact).outputs(lines)
    assert (given.shape, given.dtype) == (real.shape, real.dtype)


def test_a_note_declares_what_onnxruntime_declares(subject):
    folder = subject.artifact.folder
    for part, path in parts(folder).items():
        note, session = Notes(folder, [])[part], Session(path)
        assert (note.inputs, note.outputs) == (session.inputs, session.outputs)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64])
def test_element_types_are_named_as_onnxruntime_names_them(tmp_path, dtype):
    node = helper.make_node("Identity", ["x"], ["y"])
    made = drawn(tmp_path / "made", [node], [info("x", dtype)], [info("y", dtype)])
    note = Notes(made.folder, [])["model"]
    assert note.outputs == Session(parts(made.folder)["model"]).outputs
    [ones] = note.run({"x": np.ones((3, 4))})
    assert (ones.shape, ones.dtype) == ((3, 4), np.dtype(helper.tensor_dtype_to_np_dtype(dtype)))
    assert (ones == 1).all()


def test_stored_tensors_are_no_inputs(tmp_path):
    stored = helper.make_tensor("w", TensorProto.FLOAT, [4], [1, 1, 1, 1])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    made = drawn(tmp_path / "made", [node], [info("x"), info("w", shape=(4,))], [info("y")], [stored])
    assert list(Notes(made.folder, [])["model"].inputs) == ["x"]


def test_a_graph_that_cannot_be_read_is_refused(subject, tmp_path):
    spoiled = copied(subject, tmp_path / "spoiled")
    (spoiled.artifact.folder / "model.onnx").write_text("{")
    with pytest.raises(StageError):
        Listener(spoiled.artifact.folder, subject.manifest.task)
