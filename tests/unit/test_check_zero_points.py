"""Zero points: what is quantized around one number and computed with around another fails. It can always run: a file
that cannot be read fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelkit.checks import zero_points
from modelkit.graphs import MODEL
from modelkit.schemes import int8_dynamic
from modelkit.vocabulary import Artifact, Subject, Verdict
from subjects import artifact, copied, drawn, fake, good, info, redrawn

CODES = st.integers(0, 255)


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def verdict_of(subject: Subject) -> Verdict:
    return zero_points.check(subject, zero_points.Options())


def product(folder, quantized_with: int | None, subtracted: int | None, *between) -> Artifact:
    """A matrix, quantized around one number and multiplied around another; None leaves the operator's default, zero."""
    stored = [
        numpy_helper.from_array(np.float32(0.1), "scale"),
        numpy_helper.from_array(np.ones((4, 4), np.int8), "weight"),
        numpy_helper.from_array(np.uint8(quantized_with or 0), "with"),
        numpy_helper.from_array(np.uint8(subtracted or 0), "less"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", *(["with"] if quantized_with is not None else [])], ["0"]),
        *(helper.make_node(kind, [str(n)], [str(n + 1)]) for n, kind in enumerate(between)),
        helper.make_node(
            "MatMulInteger",
            [str(len(between)), "weight", *(["less"] if subtracted is not None else [])], ["y"], "product",
        ),
    ]  # fmt: skip
    return drawn(folder, nodes, [info("x", shape=(4, 4))], [info("y", TensorProto.INT32, (4, 4))], stored)


def judged(made: Artifact) -> Verdict:
    return verdict_of(fake(artifact=made))


def test_a_good_artifact_passes(subject):
    verdict = verdict_of(subject)
    assert verdict.outcome == "passed"
    assert verdict.measured["operands"] > 0


def test_the_runtime_s_own_dynamic_scheme_passes(subject, tmp_path):
    dynamic = copied(subject, tmp_path / "dynamic")
    (dynamic.artifact.folder / MODEL).unlink()
    int8_dynamic.quantize(subject.reference.folder, dynamic.artifact.folder, int8_dynamic.Options())
    verdict = verdict_of(replace(dynamic, artifact=artifact(dynamic.artifact.folder)))
    assert verdict.outcome == "passed"
    assert verdict.measured["operands"] > 0


def test_zero_points_of_a_real_artifact_that_are_moved_fail(subject, tmp_path):
    def moved(model):
        known = {tensor.name: tensor for tensor in model.graph.initializer}
        quantizer = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
        zero = numpy_helper.to_array(known[quantizer.input[2]])
        model.graph.initializer.append(numpy_helper.from_array((zero - 4).astype(zero.dtype), "moved"))
        quantizer.input[2] = "moved"

    verdict = verdict_of(redrawn(copied(subject, tmp_path / "moved"), moved))
    assert verdict.outcome == "failed"
    assert verdict.measured["wrong"] >= 1
    assert int(verdict.worst[0]["subtracted"]) == int(verdict.worst[0]["quantized_with"]) + 4


@given(one=CODES, other=CODES)
def test_two_numbers_pass_only_when_they_are_equal(tmp_path_factory, one, other):
    verdict = judged(product(tmp_path_factory.mktemp("drawn"), one, other))
    assert verdict.outcome == ("passed" if one == other else "failed")


@given(code=CODES)
def test_a_zero_point_that_is_left_out_is_zero(tmp_path_factory, code):
    verdict = judged(product(tmp_path_factory.mktemp("drawn"), None, code))
    assert verdict.outcome == ("failed" if code else "passed")


def test_the_sentence_names_the_node_and_both_numbers(tmp_path):
    assert judged(product(tmp_path, 128, 124)).sentence == "product subtracts 124 from what was quantized around 128"


def test_an_operand_is_followed_through_what_only_moves_values(tmp_path):
    assert judged(product(tmp_path, 128, 124, "Transpose", "Identity")).outcome == "failed"


def test_what_computes_with_integers_in_between_is_not_judged(tmp_path):
    verdict = judged(product(tmp_path, 128, 124, "Relu"))
    assert verdict.outcome == "skipped"


def test_a_graph_without_integers_is_skipped_and_told(tmp_path):
    made = drawn(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], [info("x")], [info("y")])
    verdict = judged(made)
    assert verdict.outcome == "skipped"
    assert verdict.sentence == "no graph computes with integers that it quantizes itself"


def test_a_file_that_is_no_model_fails(subject, tmp_path):
    damaged = copied(subject, tmp_path / "damaged")
    (damaged.artifact.folder / MODEL).write_bytes(b"no model")
    assert verdict_of(damaged).outcome == "failed"


@pytest.mark.parametrize("subtracted", [None, 3])
def test_a_computed_zero_point_that_is_not_subtracted_fails(tmp_path, subtracted: int | None):
    stored = [numpy_helper.from_array(np.ones((4, 4), np.int8), "weight"),
              numpy_helper.from_array(np.uint8(subtracted or 0), "less")]  # fmt: skip
    less = ["less"] if subtracted is not None else []
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["codes", "weight", *less], ["y"], "product"),
    ]
    made = drawn(tmp_path, nodes, [info("x", shape=(4, 4))], [info("y", TensorProto.INT32, (4, 4))], stored)
    verdict = judged(made)
    assert (verdict.outcome, verdict.sentence) == (
        "failed", f"product subtracts {subtracted or 0} from what was quantized around the computed zero",
    )  # fmt: skip


@pytest.mark.parametrize(("subtracted", "outcome"), [([3, 4, 5, 6], "passed"), ([3, 4, 5, 7], "failed")])
def test_zero_points_of_each_row_are_compared_one_by_one(tmp_path, subtracted: list[int], outcome: str):
    stored = [
        numpy_helper.from_array(np.float32([0.1] * 4), "scales"),
        numpy_helper.from_array(np.uint8([3, 4, 5, 6]), "with"),
        numpy_helper.from_array(np.uint8(subtracted), "less"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scales", "with"], ["codes"], axis=0),
        helper.make_node("DequantizeLinear", ["codes", "scales", "less"], ["y"], "back", axis=0),
    ]
    made = drawn(tmp_path, nodes, [info("x", shape=(4, 4))], [info("y", shape=(4, 4))], stored)
    assert judged(made).outcome == outcome
