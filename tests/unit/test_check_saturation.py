"""Saturation: sums of two products that an int16 cannot hold fail, as a processor without VNNI would cut them off. It
can always run: an artifact that does not run fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from modelkit.checks import saturation
from modelkit.graphs import MODEL
from modelkit.schemes import int8_dynamic
from modelkit.vocabulary import Subject, Verdict
from subjects import artifact, copied, good, learned, pictures, redrawn

INT16 = np.iinfo(np.int16)


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def verdict_of(subject: Subject) -> Verdict:
    return saturation.check(subject, saturation.Options())


def simulated(codes: np.ndarray, matrix: np.ndarray) -> int:
    """How many sums a product by the book cuts off, one after the other."""
    found = 0
    for row in codes.astype(int).tolist():
        for column in matrix.T.astype(int).tolist():
            for place in range(0, len(row) - 1, 2):
                both = row[place] * column[place] + row[place + 1] * column[place + 1]
                found += not INT16.min <= both <= INT16.max
    return found


@pytest.mark.parametrize("which", [good, pictures])
def test_a_good_artifact_passes_and_no_activation_could_saturate_it(which, tmp_path_factory):
    verdict = verdict_of(which(tmp_path_factory.getbasetemp()))
    assert verdict.outcome == "passed"
    assert verdict.measured["saturated"] == verdict.measured["reachable"] == 0
    assert verdict.measured["products"] > 0


@pytest.mark.parametrize("variant", ["int8", "int4"])
def test_both_branches_of_a_decoder_are_simulated(variant, tmp_path_factory):
    verdict = verdict_of(learned(tmp_path_factory.getbasetemp(), "t5-summaries", variant))
    assert verdict.outcome == "passed"
    assert verdict.measured["products"] > 20


def test_a_matrix_of_large_neighbours_fails_and_is_named(subject, tmp_path):
    def enlarge(proto):
        tensor = next(one for one in proto.graph.initializer if one.name.endswith("query.weight/int8"))
        tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), 127, np.int8), tensor.name))

    verdict = verdict_of(redrawn(copied(subject, tmp_path / "spoiled"), enlarge))
    assert verdict.outcome == "failed"
    assert verdict.measured["saturated"] > 0
    assert "query" in verdict.worst[0]["node"]
    assert verdict.worst[0]["node"] in verdict.sentence


@pytest.mark.parametrize(("options", "reachable"), [({}, True), ({"reduce_range": True}, False)])
def test_seven_bits_make_a_stock_model_safe(options, reachable, subject, tmp_path):
    made = copied(subject, tmp_path / "stock")
    (made.artifact.folder / MODEL).unlink()
    int8_dynamic.quantize(subject.reference.folder, made.artifact.folder, int8_dynamic.Options(**options))
    verdict = verdict_of(replace(made, artifact=artifact(made.artifact.folder)))
    assert (verdict.measured["reachable"] > 0) is reachable


def test_a_float_model_is_skipped_and_says_so(subject):
    verdict = verdict_of(replace(subject, artifact=subject.reference))
    assert verdict.outcome == "skipped"
    assert "multiplies no uint8" in verdict.sentence


def test_an_artifact_that_does_not_run_fails(subject, tmp_path):
    spoiled = copied(subject, tmp_path / "spoiled")
    (spoiled.artifact.folder / MODEL).write_bytes(b"no model")
    verdict = verdict_of(spoiled)
    assert verdict.outcome == "failed"
    assert "cannot be run" in verdict.sentence


@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 5), inner=st.integers(1, 9), outer=st.integers(1, 6))
def test_the_simulation_is_what_the_instruction_does(seed, tokens, inner, outer):
    random = np.random.default_rng(seed)
    codes = random.choice([0, 128, 250, 255], (tokens, inner)).astype(np.uint8)
    matrix = random.choice([-128, -127, -64, 0, 1, 64, 127], (inner, outer)).astype(np.int8)
    pairs, reachable, sums, saturated = saturation._cut_off(codes, matrix)
    assert (pairs, sums) == (inner // 2 * outer, inner // 2 * outer * tokens)
    assert saturated == simulated(codes, matrix)
    assert reachable >= bool(saturated)
