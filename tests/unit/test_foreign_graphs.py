"""graphs/foreign.py: what another exporter traced, made like ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

import small_models
from modelkit.graphs import DATA, MODEL, files, foreign
from modelkit.tasks.feature_extraction import Text
from modelkit.vocabulary import Signature
from subjects import info, specs
from traced import traced

PAST = "past_sequence_length"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    shape = ("batch_size", "sequence_length", 32)
    return traced(
        tmp_path / "two",
        [info("a", shape=shape), info("b", shape=shape)],
        [info("x", shape=shape), info("y", shape=shape)],
    )


def saved(model: ir.Model, folder: Path) -> Path:
    folder.mkdir()
    files.save(model, files.TensorFile(folder))
    onnx.checker.check_model(str(folder / MODEL), full_check=True)
    return folder


def axes(model: ir.Model) -> dict[str, list[str]]:
    return {str(value.name): [str(axis) for axis in value.shape or ()]
            for value in (*model.graph.inputs, *model.graph.outputs)}  # fmt: skip


def test_nothing_of_the_machine_is_left(two: Path, tmp_path: Path) -> None:
    made = saved(foreign.read(two), tmp_path / "made")
    for name in (MODEL, DATA):
        content = (made / name).read_bytes()
        assert b"/home/" not in content
        assert b"/tmp/" not in content
        assert b"old_name" not in content


def test_the_numbers_stay(two: Path, tmp_path: Path) -> None:
    made = saved(foreign.read(two), tmp_path / "made")
    feed = {name: np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32) for name in "ab"}
    for one, other in zip(small_models.run(two / MODEL, feed), small_models.run(made / MODEL, feed), strict=True):
        assert (one == other).all()


def test_twice_is_the_same_bytes(two: Path, tmp_path: Path) -> None:
    one, other = (saved(foreign.read(two), tmp_path / name) for name in ("one", "other"))
    assert small_models.digests(one) == small_models.digests(other)


def test_a_part_keeps_its_outputs_and_what_leads_to_them(two: Path, tmp_path: Path) -> None:
    model = foreign.read(two)
    foreign.keep(model, ("y",))
    made = saved(model, tmp_path / "made")
    assert axes(model).keys() == {"b", "y"}
    assert (made / DATA).stat().st_size == 32 * 32 * 4
    (found,) = small_models.run(made / MODEL, {"b": np.ones((1, 1, 32), np.float32)})
    assert (found == 3).all()


def test_axes_get_our_names(tmp_path: Path) -> None:
    model = foreign.read(
        traced(
            tmp_path / "causal",
            [info("a", shape=("batch_size", "sequence_length", 32)), info("p", shape=("batch_size", PAST, 32))],
            [
                info("x", shape=("batch_size", "1", 32)),
                info("y", shape=("batch_size", f"{PAST} + sequence_length", 32)),
            ],
        )
    )
    foreign.rename_axes(model)
    assert axes(model) == {
        "a": ["batch", "sequence", "32"], "p": ["batch", "past_sequence", "32"],
        "x": ["batch", "decoder_sequence", "32"], "y": ["batch", "total_sequence", "32"],
    }  # fmt: skip


def test_without_a_past_a_total_is_the_present(tmp_path: Path) -> None:
    shape = ("batch_size", f"{PAST} + sequence_length", 32)
    model = foreign.read(
        traced(
            tmp_path / "first", [info("a", shape=("text_batch_size", "sequence_length", 32))], [info("y", shape=shape)]
        )
    )
    foreign.rename_axes(model)
    assert axes(model) == {"a": ["batch", "sequence", "32"], "y": ["batch", "sequence", "32"]}


def test_the_declared_order_and_names_are_taken_and_fixed_axes_stay(two: Path, tmp_path: Path) -> None:
    model = foreign.read(two)
    shape = ("batch", 7, 99)
    foreign.declare(model, Signature(specs(b=("float32", shape), a=("float32", shape)), specs(x=("float32", shape))))
    assert list(axes(model).items()) == [
        ("b", ["batch", "7", "32"]), ("a", ["batch", "7", "32"]),
        ("x", ["batch_size", "sequence_length", "32"]), ("y", ["batch_size", "sequence_length", "32"]),
    ]  # fmt: skip
    saved(model, tmp_path / "made")


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("mean", False), ("cls", True)])
def test_vectors_are_pooled_behind_the_hidden_states(tmp_path: Path, pooling: str, normalize: bool) -> None:
    hidden, mask = (info("hidden", shape=("b", "s", 32)), info("attention_mask", TensorProto.INT64, ("b", "s")))
    folder = traced(tmp_path / "encoder", [hidden], [info("last_hidden_state", shape=("b", "s", 32))])
    model = foreign.read(folder)
    model.graph.inputs.append(ir.serde.deserialize_value_info_proto(mask, None))
    into = tmp_path / "made"
    into.mkdir()
    tensors = files.TensorFile(into)
    foreign.add_vectors(model, tensors, Text(32, pooling, normalize))  # type: ignore[arg-type]
    files.save(model, tensors)
    onnx.checker.check_model(str(into / MODEL), full_check=True)
    values = np.random.default_rng(0).normal(size=(2, 4, 32)).astype(np.float32)
    kept = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])
    _, found = small_models.run(into / MODEL, {"hidden": values, "attention_mask": kept})
    states = np.maximum(values * 2, 0)
    wanted = states[:, 0] if pooling == "cls" else np.array([states[0, :3].mean(0), states[1, 0]])
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True) if normalize else wanted
    assert np.abs(found - wanted).max() < 1e-6
