"""graphs/files.py and graphs/tape.py: ONNX files on disk, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import small_models
from modelkit.errors import StageError
from modelkit.graphs import files
from modelkit.graphs.files import DATA, MODEL, TensorFile
from modelkit.graphs.tape import Tape
from small_models import Drawing

RANDOM = np.random.default_rng(0)
LARGE = RANDOM.normal(0, 1, (32, 32)).astype(np.float32)
ODD = RANDOM.integers(-128, 127, (7, 301)).astype(np.int8)
X = {"x": RANDOM.normal(0, 1, (4, 32)).astype(np.float32)}


def draw(drawing: Drawing) -> ir.Value:
    tape = drawing.tape
    product = tape.node("product", "MatMul", drawing.x, tape.weight("large", LARGE))
    odd = tape.node("odd/sum", "ReduceSum", tape.node("odd/float", "Cast", tape.weight("odd", ODD), to=1), keepdims=0)
    shifted = tape.node("shifted", "Add", product, odd)
    return tape.node("biased", "Add", shifted, tape.weight("small", LARGE[0]))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_models.graph(tmp_path / "model", ("batch", 32), draw, ("batch", 32))


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def nested(path: Path, *, external: bool) -> None:
    """A model whose matrices live in the two branches of an `If`."""

    def branch(name: str, matrix: np.ndarray) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", f"{name}/w"], [f"{name}/y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}/y", 1, ["batch", 32])],
            [numpy_helper.from_array(matrix, f"{name}/w")],
        )

    branches = {"then_branch": branch("then", LARGE), "else_branch": branch("else", -LARGE)}
    graph = helper.make_graph(
        [helper.make_node("If", ["choice"], ["y"], **branches)],
        "outer",
        [helper.make_tensor_value_info("x", 1, ["batch", 32]), helper.make_tensor_value_info("choice", 9, [])],
        [helper.make_tensor_value_info("y", 1, ["batch", 32])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, path, save_as_external_data=external, location="else.data", size_threshold=0)


# Between stages


def test_large_tensors_go_beside_the_model_and_small_ones_stay_inside(model: Path) -> None:
    stored = {t.name: bool(t.external_data) for t in files.read_graph(model / MODEL).graph.initializer}
    assert stored == {"large": True, "odd": True, "small": False}


def test_the_data_file_holds_exactly_the_large_tensors(model: Path) -> None:
    assert (model / DATA).read_bytes() == LARGE.tobytes() + ODD.tobytes()


def test_a_model_of_small_tensors_has_no_data_file(tmp_path: Path) -> None:
    folder = small_models.graph(
        tmp_path / "model", (4,), lambda d: d.tape.node("y", "Add", d.x, d.tape.constant(1, np.float32)), (4,)
    )
    assert [path.name for path in folder.iterdir()] == [MODEL]


def test_loading_leaves_the_large_tensors_on_disk(model: Path) -> None:
    loaded = files.load(model)
    assert isinstance(loaded.graph.initializers["large"].const_value, ir.ExternalTensor)


def test_saving_elsewhere_brings_the_large_tensors_along(model: Path, tmp_path: Path) -> None:
    (copy := tmp_path / "copy").mkdir()
    files.save(files.load(model), TensorFile(copy))
    for path in model.iterdir():
        path.unlink()
    np.testing.assert_array_equal(tensors(copy / MODEL)["large"], LARGE)


def test_saving_twice_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    again = small_models.graph(tmp_path / "again", ("batch", 32), draw, ("batch", 32))
    assert small_models.digests(model) == small_models.digests(again)


def test_graphs_inside_nodes_come_along_too(tmp_path: Path) -> None:
    for name in ("source", "into"):
        (tmp_path / name).mkdir()
    nested(tmp_path / "source" / MODEL, external=True)
    files.save(files.load(tmp_path / "source"), TensorFile(tmp_path / "into"))
    for path in (tmp_path / "source").iterdir():
        path.unlink()
    path = small_models.finished(tmp_path / "into", tmp_path / "finished")
    for choice, expected in ((True, X["x"] @ LARGE), (False, X["x"] @ -LARGE)):
        [y] = small_models.run(path, {**X, "choice": np.array(choice)})
        np.testing.assert_allclose(y, expected, atol=1e-5)


# Finishing


def test_the_finished_model_is_one_file(model: Path, tmp_path: Path) -> None:
    small_models.finished(model, tmp_path / "finished")
    assert [path.name for path in (tmp_path / "finished").iterdir()] == [MODEL]


def test_the_finished_model_has_the_same_tensors(model: Path, tmp_path: Path) -> None:
    before, after = tensors(model / MODEL), tensors(small_models.finished(model, tmp_path / "finished"))
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        np.testing.assert_array_equal(tensor, after[name])


def test_the_order_of_the_tensors_in_the_data_file_does_not_matter(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model / MODEL, load_external_data=False)
    offsets = {"large": ODD.nbytes + 100, "odd": 50}
    (model / DATA).write_bytes(bytes(50) + ODD.tobytes() + bytes(50) + LARGE.tobytes())
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(offsets[tensor.name])
    (model / MODEL).write_bytes(proto.SerializeToString())
    found = tensors(small_models.finished(model, tmp_path / "finished"))
    np.testing.assert_array_equal(found["large"], LARGE)
    np.testing.assert_array_equal(found["odd"], ODD)


def test_the_finished_model_is_the_same_but_for_where_its_tensors_are(model: Path, tmp_path: Path) -> None:
    before, after = onnx.load(model / MODEL), onnx.load(small_models.finished(model, tmp_path / "finished"))
    for proto in (before, after):
        proto.graph.ClearField("initializer")
    assert before == after


def test_the_finished_model_is_valid(model: Path, tmp_path: Path) -> None:
    onnx.checker.check_model(small_models.finished(model, tmp_path / "finished"), full_check=True)


def test_the_finished_model_computes_the_same(model: Path, tmp_path: Path) -> None:
    [y] = small_models.run(small_models.finished(model, tmp_path / "finished"), X)
    np.testing.assert_allclose(y, X["x"] @ LARGE + ODD.sum(dtype=np.float32) + LARGE[0], rtol=1e-5)


def test_finishing_twice_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    one, other = (small_models.finished(model, tmp_path / name).read_bytes() for name in ("one", "other"))
    assert one == other


def test_the_finished_file_reads_as_protobuf_would_write_it(model: Path, tmp_path: Path) -> None:
    path = small_models.finished(model, tmp_path / "finished")
    assert onnx.load(path).ByteSize() == path.stat().st_size


@given(shapes=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=6))
def test_tensors_of_any_sizes_survive_finishing(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("sizes")
    arrays = {f"t{n}": np.full(shape, n, np.float32) for n, shape in enumerate(shapes)}

    def sums(drawing: Drawing) -> ir.Value:
        total = drawing.x
        for name, array in arrays.items():
            part = drawing.tape.node(f"{name}/sum", "ReduceSum", drawing.tape.weight(name, array), keepdims=0)
            total = drawing.tape.node(f"{name}/total", "Add", total, part)
        return total

    path = small_models.finished(small_models.graph(folder / "model", (1,), sums, (1,)), folder / "finished")
    assert {name: array.shape for name, array in tensors(path).items()} == {n: a.shape for n, a in arrays.items()}
    [y] = small_models.run(path, {"x": np.zeros(1, np.float32)})
    assert y == sum(array.sum() for array in arrays.values())


def test_a_data_file_cut_short_is_told(model: Path, tmp_path: Path) -> None:
    data = model / DATA
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(StageError, match=r"model\.onnx\.data ends 10 bytes early"):
        small_models.finished(model, tmp_path / "finished")


def test_a_model_too_large_for_one_file_stays_two_that_load(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_FILE", 2000)
    path = small_models.finished(model, tmp_path / "finished")
    assert sorted(entry.name for entry in path.parent.iterdir()) == [MODEL, DATA]
    [y] = small_models.run(path, X)
    assert y.shape == (4, 32)


def test_the_limit_is_what_one_file_would_weigh(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = small_models.finished(model, tmp_path / "one").stat().st_size
    # The sum of the two files is a little more than the one.
    two = sum(path.stat().st_size for path in model.iterdir())
    assert size <= two <= size + 200
    monkeypatch.setattr(files, "LARGEST_FILE", two)
    small_models.finished(model, tmp_path / "still one")
    assert not (tmp_path / "still one" / DATA).exists()


# The account


def test_the_account_lists_every_tensor_largest_first(model: Path) -> None:
    rows = files.account(model / MODEL)
    assert [(name, dtype, shape) for name, dtype, shape, _ in rows] == [
        ("large", "FLOAT", (32, 32)),
        ("odd", "INT8", (7, 301)),
        ("small", "FLOAT", (32,)),
    ]


def test_the_account_is_that_of_one_file_or_two(model: Path, tmp_path: Path) -> None:
    path = small_models.finished(model, tmp_path / "finished")
    for two, one in zip(files.account(model / MODEL), files.account(path), strict=True):
        assert two[:3] == one[:3]
        # Inside the file a tensor carries its name and shape as well.
        assert two[3] <= one[3] <= two[3] + 40


def test_the_account_covers_the_finished_file_but_for_its_nodes(model: Path, tmp_path: Path) -> None:
    path = small_models.finished(model, tmp_path / "finished")
    total = sum(size for *_, size in files.account(path))
    assert 0 < path.stat().st_size - total < 1000


def test_the_account_sees_tensors_of_inner_graphs(tmp_path: Path) -> None:
    nested(tmp_path / MODEL, external=False)
    assert [row[0] for row in files.account(tmp_path / MODEL)] == ["else/w", "then/w"]


# What is no model


@pytest.mark.parametrize("content", [b"not onnx", b"\x00" * 64, b'{"json": 1}'])
def test_what_is_no_onnx_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(StageError, match="is no readable ONNX file"):
        files.read_graph(tmp_path / MODEL)


def test_an_empty_file_is_told_as_one_without_a_graph(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"")
    with pytest.raises(StageError, match="is an ONNX file without a graph"):
        files.read_graph(tmp_path / MODEL)


# The tape


def test_equal_constants_are_stored_once(tmp_path: Path) -> None:
    tape = Tape(TensorFile(tmp_path))
    assert tape.ints(1, 2) is tape.ints(1, 2)
    assert len(tape.initializers) == 1


@given(
    one=st.lists(st.integers(-9, 9), max_size=3),
    other=st.lists(st.integers(-9, 9), max_size=3),
    types=st.tuples(*[st.sampled_from([np.int64, np.float32, np.uint8])] * 2),
)
def test_different_constants_have_different_names(
    tmp_path_factory: pytest.TempPathFactory, one: list[int], other: list[int], types: tuple[type, type]
) -> None:
    tape = Tape(TensorFile(tmp_path_factory.getbasetemp()))
    values = [np.abs(v) if t is np.uint8 else np.array(v) for v, t in zip((one, other), types, strict=True)]
    first, second = (tape.constant(v, t) for v, t in zip(values, types, strict=True))
    assert (first is second) == (first.name == second.name)


def test_a_transposed_array_is_stored_in_the_order_it_reads(tmp_path: Path) -> None:
    value = Tape(TensorFile(tmp_path)).weight("w", LARGE.T)
    np.testing.assert_array_equal(value.const_value.numpy(), LARGE.T)
