"""graphs/float64.py: what a float32 graph computes, in float64, as far as somebody asks."""

from __future__ import annotations

import math
from base64 import b64encode
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper

import small_models
import stand_ins
from modelkit import graphs, tracing
from modelkit.errors import StageError
from modelkit.graphs import MODEL
from modelkit.graphs.float64 import Activations, erf, significant
from modelkit.graphs.kept import Kept
from modelkit.images import DATA_URL
from stand_ins.pictures import picture
from subjects import drawn, info, pictures
from writers import LLAMA, T5, learned

FINITE = st.floats(-1e6, 1e6)


@given(arrays.arrays(np.float64, (7,), elements=FINITE))
def test_the_error_function_is_that_of_the_standard_library(x):
    assert np.allclose(erf(x), [math.erf(value) for value in x], rtol=0, atol=1e-14)


@given(arrays.arrays(np.float64, (5,), elements=st.floats(1e-30, 1e30)), st.integers(1, 30))
def test_as_many_binary_digits_as_asked_are_kept(values, bits):
    kept = significant(values, bits)
    assert np.all(np.abs(kept - values) <= values * 2.0**-bits)
    mantissas = np.frexp(kept)[0] * 2.0 ** (bits + 1)
    assert np.array_equal(mantissas, np.rint(mantissas))


def test_every_value_is_what_onnxruntime_computes_in_float32(tmp_path: Path) -> None:
    folder = small_models.exported(stand_ins.bert(tmp_path / "source"), tmp_path / "made")
    feeds = [small_models.feed(1, 5 + number, seed=number) for number in range(3)]
    found = Activations(folder / MODEL, feeds).of("last_hidden_state")
    runs = [small_models.run(folder / MODEL, feed)[0] for feed in feeds]
    expected = np.concatenate([run.reshape(-1, run.shape[-1]) for run in runs])
    assert found is not None
    assert found.dtype == np.float64
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", [T5, LLAMA])
def test_a_writer_s_scores_are_those_of_its_float32_model(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    subject = learned(tmp_path_factory.getbasetemp(), name)
    [(part, fed)] = tracing.feeds(subject.reference.folder, subject.manifest.task, ["def f(x): return x"]).items()
    found = Activations(graphs.parts(subject.reference.folder)[part], [one.feed for one in fed]).of("logits")
    assert found is not None
    assert np.allclose(found, np.concatenate([one.exact.reshape(-1, found.shape[-1]) for one in fed]), atol=1e-3)


def test_images_are_seen_as_onnxruntime_sees_them(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    subject = pictures(tmp_path_factory.getbasetemp())
    picture("RGB", 40, 40).save(tmp_path / "one.png")
    image = f"{DATA_URL}png;base64,{b64encode((tmp_path / 'one.png').read_bytes()).decode()}"
    [(part, fed)] = tracing.feeds(subject.reference.folder, subject.manifest.task, [image]).items()
    found = Activations(graphs.parts(subject.reference.folder)[part], [one.feed for one in fed]).of(fed[0].output)
    assert found is not None
    assert np.allclose(found, fed[0].exact, atol=1e-4)


def walked(folder: Path, nodes: list[onnx.NodeProto], *, fed: list[dict[str, np.ndarray]], out: str) -> Activations:
    made = drawn(folder, nodes, [info("x")], [info(out)])
    return Activations(made.folder / MODEL, fed)


X = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)


def test_a_value_that_no_run_computes_is_none(tmp_path: Path) -> None:
    activations = walked(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], fed=[{"x": X}], out="y")
    assert activations.of("another") is None


def test_without_runs_there_are_no_values(tmp_path: Path) -> None:
    assert walked(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], fed=[], out="y").of("y") is None


def test_runs_stand_one_after_the_other_whatever_their_leading_axes(tmp_path: Path) -> None:
    activations = walked(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], fed=[{"x": X}, {"x": X[:1]}], out="y")
    assert np.array_equal(activations.of("y"), -np.concatenate([X, X[:1]]))


def test_a_cast_to_float32_loses_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sqrt", ["x"], ["root"]),
        helper.make_node("Cast", ["root"], ["y"], to=TensorProto.FLOAT),
    ]
    assert walked(tmp_path, nodes, fed=[{"x": X[1:]}], out="y").of("y")[0, 0] == math.sqrt(3)


def test_both_forms_of_gelu_are_computed(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gelu", ["x"], ["exact"]), helper.make_node("Gelu", ["exact"], ["y"], approximate="tanh")]
    activations = walked(tmp_path, nodes, fed=[{"x": X}], out="y")
    exact = activations.of("exact")
    wide = X.astype(np.float64)
    assert np.allclose(exact, wide * 0.5 * (1 + erf(wide / math.sqrt(2))), atol=1e-14)
    inner = math.sqrt(2 / math.pi) * (exact + 0.044715 * exact**3)
    assert np.allclose(activations.of("y"), 0.5 * exact * (1 + np.tanh(inner)), atol=1e-6)


def test_an_operator_without_a_reference_implementation_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft")]
    with pytest.raises(StageError, match=r"ONNX has no reference implementation of com\.microsoft\.FusedMatMul"):
        walked(tmp_path, nodes, fed=[{"x": X}], out="y").of("y")


def test_kept_values_are_the_same_in_any_order_and_walked_for_once_each_way(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["y"])]
    walks = []

    def walk() -> Activations:
        walks.append(1)
        return walked(tmp_path, nodes, fed=[{"x": X}], out="y")

    (folder := tmp_path / "kept").mkdir()
    kept = Kept(walk, folder)
    wide = X.astype(np.float64)
    for _ in range(2):
        assert np.array_equal(kept.of("y"), np.exp(-wide))
        assert np.array_equal(kept.of("a"), -wide)
        assert kept.of("another") is None
    assert len(walks) == 2
