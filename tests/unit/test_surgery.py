"""graphs/surgery.py: what a finished graph stores is read, replaced and saved, and nothing beside it moves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from modelkit import runtime
from modelkit.errors import StageError
from modelkit.graphs import DATA, MODEL
from modelkit.graphs.surgery import Surgery
from modelkit.vocabulary import Subject
from subjects import drawn, good, info
from writers import LLAMA, T5, learned

DTYPES = [np.float32, np.float16, np.float64, np.int8, np.uint8, np.int64, np.bool_]
PACKED = [ml_dtypes.int4, ml_dtypes.uint4]
LAYER = "encoder.layer.1.output.dense"


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture
def graph(subject: Subject, tmp_path: Path) -> Surgery:
    """A copy of a finished int8 model, opened."""
    (tmp_path / MODEL).write_bytes((subject.artifact.folder / MODEL).read_bytes())
    return Surgery(tmp_path / MODEL)


def storing(folder: Path, **stored: Any) -> Surgery:
    """A model that stores these arrays and reads none of them."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    return Surgery(
        drawn(folder, [helper.make_node("Neg", ["x"], ["y"])], [info("x")], [info("y")], tensors).folder / MODEL
    )


def beside(folder: Path, **stored: Any) -> Surgery:
    """The same with the arrays in a data file, one behind the other."""
    graph, start = storing(folder, **stored), 0
    with (folder / DATA).open("wb") as data:
        for tensor in graph.tensors():
            content = tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": DATA, "offset": start, "length": len(content)}.items():
                tensor.external_data.add(key=key, value=str(value))
            start += data.write(content)
    graph.save()
    return Surgery(graph.path)


def of(graph: Surgery, name: str) -> TensorProto:
    [found] = [tensor for tensor in graph.tensors() if tensor.name == name]
    return found


def contents(path: Path) -> dict[str, np.ndarray]:
    """What onnx itself reads, from either file."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def forked(folder: Path) -> Surgery:
    """`x` times a matrix that stands in one of two bodies."""
    bodies = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", f"{name}/w"], [f"{name}/out"])], name, [], [info(f"{name}/out")],
            [numpy_helper.from_array(np.eye(32, dtype=np.float32) * factor, f"{name}/w")],
        )
        for name, factor in (("then", 2), ("else", 3))
    ]  # fmt: skip
    asked = helper.make_tensor_value_info("asked", TensorProto.BOOL, [])
    node = helper.make_node("If", ["asked"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    wide = [info(name, shape=("batch", 32)) for name in ("x", "y")]
    return Surgery(drawn(folder, [node], [wide[0], asked], [wide[1]]).folder / MODEL)


def run(graph: Surgery, **feed: Any) -> np.ndarray:
    graph.save()
    return runtime.Session(graph.path).run({name: np.asarray(value) for name, value in feed.items()})[0]


# Opening and saving


@pytest.mark.parametrize("content", [b"no model", b""])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(StageError, match="ONNX file"):
        Surgery(tmp_path / MODEL)


def test_a_graph_that_was_only_looked_at_is_saved_as_it_was(graph):
    before = onnx.load(graph.path)
    for tensor in graph.tensors():
        graph.array(tensor)
    graph.save()
    assert onnx.load(graph.path) == before


def test_a_graph_with_a_data_file_that_was_only_read_is_saved_as_it_was(tmp_path):
    graph = beside(tmp_path, one=np.arange(9.0), other=np.arange(5))
    before = graph.path.read_bytes()
    for tensor in graph.tensors():
        graph.array(tensor)
    graph.save()
    assert graph.path.read_bytes() == before


def test_a_data_file_that_onnx_reads_into_the_graph_stays_out_of_it(tmp_path, monkeypatch):
    # As onnx 1.18 does.
    def to_array(tensor: TensorProto, folder: str, read: Any = numpy_helper.to_array) -> np.ndarray:
        array = read(tensor, folder)
        tensor.raw_data = array.tobytes()
        return array

    graph = beside(tmp_path, one=np.arange(9.0))
    before = graph.path.read_bytes()
    monkeypatch.setattr(numpy_helper, "to_array", to_array)
    graph.array(of(graph, "one"))
    graph.save()
    assert graph.path.read_bytes() == before


def test_the_same_change_gives_the_same_bytes(graph):
    saved = []
    for _ in range(2):
        graph.put(of(graph, f"{LAYER}.bias"), np.zeros(32))
        graph.save()
        saved.append(graph.path.read_bytes())
    assert saved[0] == saved[1]


# Reading


def test_a_finished_int8_model_has_its_matrices_tables_and_scales(graph):
    dense = [
        f"encoder.layer.{layer}.{part}.weight"
        for layer in (0, 1)
        for part in (
            *(f"attention.self.{name}" for name in ("query", "key", "value")),
            "attention.output.dense", "intermediate.dense", "output.dense",
        )
    ]  # fmt: skip
    assert sorted(tensor.name for tensor in graph.matrices()) == sorted(f"{name}/int8" for name in dense)
    assert sorted(tensor.name for tensor in graph.scales()) == sorted(f"{name}/scales" for name in dense)
    tables = ["embeddings.position_embeddings.weight", "embeddings.word_embeddings.weight"]
    assert sorted(tensor.name for tensor in graph.tables()) == tables


def test_the_float32_model_has_the_same_matrices_with_their_numbers_in_the_data_file(subject, graph):
    exact = Surgery(subject.reference.folder / MODEL)
    names = [tensor.name.removesuffix("/int8") for tensor in graph.matrices()]
    assert [tensor.name for tensor in exact.matrices()] == names
    assert exact.scales() == []
    for codes, weight in zip(graph.matrices(), exact.matrices(), strict=True):
        assert weight.data_location == TensorProto.EXTERNAL
        scales = graph.array(of(graph, f"{weight.name}/scales"))
        restored, wanted = graph.array(codes) * scales, exact.array(weight)
        assert np.abs(restored - wanted).max() <= scales.max() * 0.51


@pytest.mark.parametrize(("name", "matrices"), [(LLAMA, 4 * 7), (T5, None)])
def test_a_finished_int4_model_has_packed_codes_for_matrices_and_no_scales_or_blocks(tmp_path_factory, name, matrices):
    subject = learned(tmp_path_factory.getbasetemp(), name, "int4")
    graph, exact = Surgery(subject.artifact.folder / MODEL), Surgery(subject.reference.folder / MODEL)
    found = [tensor for tensor in graph.matrices() if tensor.data_type == TensorProto.UINT8]
    assert len(found) == (matrices or len([one for one in exact.matrices() if "relative" not in one.name]))
    for tensor in found:
        weight = of(exact, tensor.name.rpartition("/")[0])
        # Two codes of four bits share a byte.
        assert graph.array(tensor).size * 2 == exact.array(weight).size
    [table] = [tensor for tensor in graph.tables() if tensor.dims[0] == 768]
    assert (table.data_type, graph.array(table).size * 2) == (
        TensorProto.UINT8, exact.array(max(exact.tables(), key=lambda one: one.dims[0])).size,
    )  # fmt: skip


def test_the_scales_of_a_table_are_none_of_a_matrix(tmp_path_factory):
    graph = Surgery(learned(tmp_path_factory.getbasetemp(), LLAMA, "int4").artifact.folder / MODEL)
    stems = {tensor.name.rpartition("/")[0] for tensor in graph.matrices()}
    assert {tensor.name.removesuffix("/scales") for tensor in graph.scales()} == stems


def test_floats_are_found_by_how_their_names_end(graph):
    assert {name.rpartition(".")[2] for name in (tensor.name for tensor in graph.floats(".bias"))} == {"bias"}
    assert len(graph.floats("LayerNorm.weight")) == 5
    assert graph.floats("/int8") == []


def test_an_array_is_a_copy(graph):
    bias = of(graph, f"{LAYER}.bias")
    graph.array(bias)[:] = 7
    assert not (graph.array(bias) == 7).any()


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_tensor_whose_data_is_not_there_is_refused_by_name(tmp_path, damage):
    graph = beside(tmp_path, one=np.arange(9.0))
    if damage == "gone":
        (tmp_path / DATA).unlink()
    else:
        (tmp_path / DATA).write_bytes(b"short")
    with pytest.raises(StageError, match="stores nothing that can be read as one"):
        graph.array(of(graph, "one"))


# Putting


@given(data=st.data(), dtype=st.sampled_from([*DTYPES, *PACKED]), outside=st.booleans())
def test_what_is_put_is_what_is_read_and_its_neighbours_stay(tmp_path_factory, data, dtype, outside):
    folder = tmp_path_factory.mktemp("put")
    shape = data.draw(arrays.array_shapes(max_dims=3, max_side=5))
    codes = arrays.arrays(np.int8, shape, elements=st.integers(0, 7))
    before, after = (data.draw(codes).astype(dtype) for _ in range(2))
    graph = (beside if outside else storing)(folder, left=np.float32([1, 2]), one=before, right=np.int64([3]))
    graph.put(of(graph, "one"), after)
    assert np.array_equal(graph.array(of(graph, "one")), after)
    graph.save()
    found = contents(graph.path)
    assert found["one"].dtype == dtype
    assert np.array_equal(found["one"], after)
    assert (found["left"].tolist(), found["right"].tolist()) == ([1, 2], [3])


def test_an_odd_number_of_packed_codes_takes_no_more_room_than_it_had(tmp_path):
    graph = beside(tmp_path, one=np.array([1, 2, 3], ml_dtypes.int4), right=np.uint8([255]))
    graph.put(of(graph, "one"), np.array([-8, 7, -1], ml_dtypes.int4))
    assert (tmp_path / DATA).read_bytes() == bytes([0x78, 0x0F, 255])


def test_what_is_put_takes_the_element_type_of_what_was_there(graph):
    codes = graph.matrices()[0]
    graph.put(codes, np.full(tuple(codes.dims), 5, np.int64))
    assert graph.array(codes).dtype == np.int8


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (5,), (6, 1), ()])
def test_another_shape_is_refused_and_nothing_is_written(tmp_path, outside, shape):
    graph = (beside if outside else storing)(tmp_path, one=np.zeros(6), right=np.ones(2))
    with pytest.raises(ValueError, match=r"one has the shape \[6\], and not \["):
        graph.put(of(graph, "one"), np.full(shape, 9.0))
    assert contents(graph.path)["one"].tolist() == [0] * 6
    assert contents(graph.path)["right"].tolist() == [1, 1]


def test_a_tensor_that_was_written_as_a_list_of_floats_is_replaced(tmp_path):
    tensor = helper.make_tensor("one", TensorProto.FLOAT, [2], [1.0, 2.0])
    made = drawn(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], [info("x")], [info("y")], [tensor])
    graph = Surgery(made.folder / MODEL)
    graph.put(of(graph, "one"), np.float32([3, 4]))
    graph.save()
    assert contents(graph.path)["one"].tolist() == [3, 4]


def test_what_is_put_into_the_data_file_leaves_the_graph_alone(tmp_path):
    graph = beside(tmp_path, one=np.zeros(6))
    before = graph.path.read_bytes()
    graph.put(of(graph, "one"), np.ones(6))
    graph.save()
    assert graph.path.read_bytes() == before


def test_a_changed_scale_changes_what_the_model_answers(subject, graph):
    feed = {name: np.ones((1, 4), np.int64) for name in runtime.Session(graph.path).inputs}
    before = run(graph, **feed)
    scales = of(graph, f"{LAYER}.weight/scales")
    graph.put(scales, graph.array(scales) * 2)
    assert not np.allclose(run(graph, **feed), before)
    shutil.copy(subject.artifact.folder / MODEL, graph.path)
    assert np.array_equal(run(Surgery(graph.path), **feed), before)


def test_one_tensor_more_is_stored(graph):
    assert graph.add("one more", np.int64([1, 2])) == "one more"
    graph.save()
    assert contents(graph.path)["one more"].tolist() == [1, 2]


# Nodes


def test_bodies_of_a_branch_are_looked_into(tmp_path):
    graph = forked(tmp_path)
    assert {tensor.name for tensor in graph.matrices()} == {"then/w", "else/w"}
    assert [node.op_type for node in graph.nodes()] == ["If", "MatMul", "MatMul"]
    assert {node.output[0] for node in graph.readers("x", "MatMul")} == {"then/out", "else/out"}
    assert graph.maker("else/out").op_type == "MatMul"
    graph.put(of(graph, "then/w"), np.eye(32) * 5)
    assert run(graph, x=np.ones((1, 32), np.float32), asked=True).max() == 5
    assert run(graph, x=np.ones((1, 32), np.float32), asked=False).max() == 3


def test_makers_and_readers_are_found_and_where_there_is_none_none(graph):
    assert {node.op_type for node in graph.nodes("Gather", "Softmax")} == {"Gather", "Softmax"}
    [product] = graph.readers(f"{LAYER}.weight/int8")
    assert graph.maker(product.output[0]) == product
    assert graph.maker("input_ids") is None
    assert graph.readers("nowhere") == []


def test_a_node_that_was_put_in_is_read_in_the_place_of_another(graph):
    feed = {name: np.ones((1, 4), np.int64) for name in runtime.Session(graph.path).inputs}
    before = run(graph, **feed)
    first = graph.graph.output[0].name
    maker = graph.maker(first)
    maker.output[:] = ["kept"]
    graph.redirect(first, "kept")
    graph.insert("Neg", ["kept"], first, after="kept")
    assert np.array_equal(run(graph, **feed), -before)


def test_the_node_that_makes_a_value_goes_on_reading_the_old_one(tmp_path):
    graph = forked(tmp_path)
    graph.insert("Neg", ["x"], "turned")
    graph.redirect("x", "turned")
    assert graph.maker("turned").input == ["x"]
    assert graph.readers("x") == [graph.maker("turned")]
    assert run(graph, x=np.ones((1, 32), np.float32), asked=True).min() == -2


def test_a_node_stands_behind_what_it_reads_or_in_front_of_all(graph):
    place = [node.op_type for node in graph.graph.node].index("Softmax")
    softmax = graph.graph.node[place].output[0]
    graph.insert("Neg", [softmax], "behind", after=softmax)
    assert graph.graph.node[place + 1].output[0] == "behind"
    graph.insert("Neg", ["x"], "first", axis=1)
    assert (graph.graph.node[0].output[0], graph.graph.node[0].attribute[0].name) == ("first", "axis")
