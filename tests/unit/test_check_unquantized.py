"""Unquantized: a tensor that a scheme left alone and that is not the float32 model's fails by name, whether or not an
output shows it. What cannot run: a float32 model that cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelkit.checks import outputs, unquantized
from modelkit.errors import CheckError
from modelkit.graphs import DATA, MODEL
from modelkit.graphs.surgery import Surgery
from modelkit.vocabulary import Subject, Verdict
from subjects import artifact, copied, drawn, fake, good, info, pictures, redrawn
from writers import LLAMA, T5, in_matrix, learned

BIAS = "encoder.layer.0.attention.self.key.bias"


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(subject: Subject, tmp_path: Path) -> Subject:
    """`subject` with an artifact to spoil."""
    return copied(subject, tmp_path / "copy")


def verdict_of(subject: Subject) -> Verdict:
    return unquantized.check(subject, unquantized.Options())


def between(folder: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> Verdict:
    """The verdict on a model that stores the arrays `ours`, beside a float32 model that stores `theirs`."""
    models = []
    for name, arrays in (("ours", ours), ("theirs", theirs)):
        tensors = [numpy_helper.from_array(np.asarray(array), key) for key, array in arrays.items()]
        nodes = [helper.make_node("Neg", ["x"], ["y"])]
        models.append(drawn(folder / name, nodes, [info("x")], [info("y")], tensors))
    return verdict_of(fake(artifact=models[0], reference=models[1]))


def test_a_good_artifact_passes(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.sentence, verdict.measured) == (
        "passed", "36 tensors, unchanged", {"tensors": 36, "changed": 0},
    )  # fmt: skip


@pytest.mark.parametrize("name", [LLAMA, T5])
@pytest.mark.parametrize("variant", ["fp32", "int8", "int4"])
def test_a_model_that_writes_passes(tmp_path_factory, name, variant):
    assert verdict_of(learned(tmp_path_factory.getbasetemp(), name, variant)).outcome == "passed"


def test_a_model_of_two_parts_passes(tmp_path_factory):
    assert verdict_of(pictures(tmp_path_factory.getbasetemp())).outcome == "passed"


def test_the_bias_of_a_key_that_no_output_shows_fails_by_name(copy):
    # Softmax takes no notice of what is the same for all keys of a query.
    spoiled = in_matrix(BIAS, np.zeros_like)(copy)
    assert outputs.check(spoiled, outputs.Options()).outcome == "passed"
    verdict = verdict_of(spoiled)
    assert (verdict.outcome, verdict.sentence) == ("failed", f"{BIAS} is not the float32 model's")
    assert verdict.measured == {"tensors": 36, "changed": 1}
    [stored] = [one for one in Surgery(copy.reference.folder / MODEL).tensors() if one.name == BIAS]
    exact = np.abs(Surgery(copy.reference.folder / MODEL).array(stored)).max()
    assert verdict.worst == ({"tensor": BIAS, "part": "model", "max_abs": pytest.approx(float(exact))},)


def test_the_tensor_that_is_farthest_off_is_named_first_and_the_rest_are_counted(copy):
    for layer, off in ((0, 1), (1, 2)):
        for part in ("query", "key", "value"):
            name = f"encoder.layer.{layer}.attention.self.{part}.bias"
            copy = in_matrix(name, lambda bias, off=off: bias + np.float32(off))(copy)
    verdict = verdict_of(copy)
    assert verdict.sentence.startswith("encoder.layer.1.")
    assert verdict.sentence.endswith(" is not the float32 model's (6 such tensors)")
    assert [round(row["max_abs"]) for row in verdict.worst] == [2, 2, 2, 1, 1]


@given(place=st.integers(0, 31), bit=st.integers(0, 31))
def test_any_flipped_bit_fails(tmp_path_factory, place, bit):
    copy = copied(good(tmp_path_factory.getbasetemp()), tmp_path_factory.mktemp("flipped") / "copy")

    def flip(bias: Any) -> Any:
        bits = bias.copy()
        bits.view(np.uint32)[place] ^= np.uint32(1 << bit)
        return bits

    verdict = verdict_of(in_matrix(BIAS, flip)(copy))
    assert verdict.sentence == f"{BIAS} is not the float32 model's"
    json.dumps(asdict(verdict), allow_nan=False)


@pytest.mark.parametrize(("ours", "theirs"), [(-0.0, 0.0), (np.nan, 1.0), (np.inf, 1.0), (1.0, np.inf)])
def test_a_number_that_no_difference_measures_fails_all_the_same(tmp_path, ours, theirs):
    verdict = between(tmp_path, {"a": np.float32([ours])}, {"a": np.float32([theirs])})
    assert verdict.outcome == "failed"
    json.dumps(asdict(verdict), allow_nan=False)


def test_a_number_that_no_difference_measures_is_farthest_off(tmp_path):
    zeros = dict.fromkeys("ab", np.float32([0]))
    verdict = between(tmp_path, {"a": np.float32([9]), "b": np.float32([np.nan])}, zeros)
    assert [(row["tensor"], row["max_abs"]) for row in verdict.worst] == [("b", None), ("a", 9)]


def test_a_nan_that_the_float32_model_has_as_well_passes(tmp_path):
    same = {"a": np.float32([np.nan, np.inf, -0.0])}
    assert between(tmp_path, same, same).outcome == "passed"


def test_a_tensor_of_another_shape_fails(tmp_path):
    verdict = between(tmp_path, {"a": np.zeros((2, 3), np.float32)}, {"a": np.zeros((3, 2), np.float32)})
    assert verdict.sentence == "a is not the float32 model's"
    assert verdict.worst[0]["max_abs"] is None


def test_integers_are_compared_as_well(tmp_path):
    assert between(tmp_path, {"axes": np.int64([1])}, {"axes": np.int64([2])}).outcome == "failed"


def test_texts_are_compared_letter_by_letter(tmp_path):
    labels = {"labels": np.array(["yes", "no"], object)}
    assert between(tmp_path / "same", labels, labels).outcome == "passed"
    assert between(tmp_path / "other", labels, {"labels": np.array(["yes", "nö"], object)}).outcome == "failed"


def test_a_tensor_of_another_type_is_the_schemes_own(tmp_path):
    same = np.float32([1, 2])
    verdict = between(tmp_path, {"a": np.int8([1]), "b": same}, {"a": np.float32([3]), "b": same})
    assert (verdict.outcome, verdict.measured) == ("passed", {"tensors": 1, "changed": 0})


def test_bodies_that_each_have_a_tensor_of_one_name_pass_and_are_looked_at(tmp_path):
    def model(folder: Path, *numbers: float) -> Any:
        bodies = []
        for place, number in enumerate(numbers):
            nodes = [helper.make_node("Add", ["x", "own"], ["out"])]
            own = numpy_helper.from_array(np.float32([number] * 4), "own")
            bodies.append(helper.make_graph(nodes, f"body{place}", [], [info("out")], [own]))
        asked = helper.make_tensor_value_info("asked", TensorProto.BOOL, [])
        node = helper.make_node("If", ["asked"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
        return drawn(folder, [node], [info("x"), asked], [info("y")])

    exact = model(tmp_path / "theirs", 1, 2)
    assert verdict_of(fake(artifact=model(tmp_path / "ours", 1, 2), reference=exact)).outcome == "passed"
    assert verdict_of(fake(artifact=model(tmp_path / "wrong", 1, 5), reference=exact)).worst[0]["max_abs"] == 3


def test_models_that_share_no_tensor_are_skipped_and_it_is_said(tmp_path):
    verdict = between(tmp_path, {"a/int8": np.int8([1])}, {"a": np.float32([1])})
    assert (verdict.outcome, verdict.sentence) == (
        "skipped", "no tensor has the name and type it has in the float32 model",
    )  # fmt: skip


# What cannot be read


def test_a_file_that_is_no_model_fails_and_is_no_crash(copy):
    (copy.artifact.folder / MODEL).write_bytes(b"no model")
    verdict = verdict_of(copy)
    assert (verdict.outcome, verdict.sentence) == ("failed", "model.onnx is no readable ONNX file")


def test_a_tensor_that_is_shorter_than_its_shape_fails_and_is_no_crash(copy):
    def edit(proto: onnx.ModelProto) -> None:
        tensor = next(one for one in proto.graph.initializer if one.name == BIAS)
        tensor.raw_data = tensor.raw_data[4:]

    verdict = verdict_of(redrawn(copy, edit))
    assert (verdict.outcome, verdict.sentence) == (
        "failed", f"model.onnx stores nothing that can be read as {BIAS}",
    )  # fmt: skip


@pytest.mark.parametrize("edit", [lambda path: path.unlink(), lambda path: path.rename(path.parent / "other.onnx")])
def test_other_parts_than_the_float32_model_has_fail_and_are_no_crash(copy, edit: Callable[[Path], Any]):
    edit(copy.artifact.folder / MODEL)
    verdict = verdict_of(copy)
    there = "other" if (copy.artifact.folder / "other.onnx").exists() else "none"
    assert (verdict.outcome, verdict.sentence) == (
        "failed", f"the artifact's parts are {there}, the float32 model's model",
    )  # fmt: skip


@pytest.mark.parametrize("name", [MODEL, DATA])
def test_a_float32_model_that_cannot_be_read_is_an_error_and_no_verdict(subject, tmp_path, name):
    made = copied(replace(subject, artifact=subject.reference), tmp_path / "float32")
    (made.artifact.folder / name).write_bytes(b"")
    with pytest.raises(CheckError, match=r"the float32 model's model\.onnx "):
        verdict_of(replace(subject, reference=artifact(made.artifact.folder)))
