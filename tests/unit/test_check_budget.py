"""Budget: the model's files may be as large as the manifest says and not a byte larger."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper, numpy_helper

from modelkit.checks import budget
from modelkit.graphs import DATA, MODEL
from modelkit.vocabulary import Artifact, Choice, FileDigest, Verdict
from subjects import drawn, fake, good, info


@pytest.fixture
def made(tmp_path) -> Artifact:
    """A model with a matrix of 4,000 bytes, a vector of 16 and a scalar."""
    arrays = {"matrix": np.ones((250, 4)), "vector": np.ones(4), "scalar": np.ones(())}
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    return drawn(tmp_path, [helper.make_node("Add", ["x", "vector"], ["y"])], [info("x")], [info("y")], tensors)


def verdict_of(artifact: Artifact, allowed: int | None) -> Verdict:
    return budget.check(fake(artifact=artifact, budget=allowed), budget.Options())


def size_of(artifact: Artifact) -> int:
    return artifact.files[MODEL].size


def test_a_good_artifact_passes(tmp_path_factory):
    verdict = budget.check(good(tmp_path_factory.getbasetemp()), budget.Options())
    assert (verdict.outcome, verdict.limits) == ("passed", {"bytes": 1_000_000})


def test_a_model_below_its_budget_passes_with_the_share_that_is_left(made):
    verdict = verdict_of(made, size_of(made) * 2)
    assert (verdict.outcome, verdict.margin) == ("passed", 0.5)


def test_a_model_of_exactly_its_budget_passes(made):
    verdict = verdict_of(made, size_of(made))
    assert (verdict.outcome, verdict.margin) == ("passed", 0)


def test_one_byte_more_than_the_budget_fails(made):
    verdict = verdict_of(made, size_of(made) - 1)
    assert verdict.outcome == "failed"
    assert verdict.margin < 0
    assert " are 1 more than the budget of " in verdict.sentence


def test_a_model_far_over_its_budget_fails_with_both_sizes(made):
    verdict = verdict_of(made, 100)
    size = size_of(made)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith(
        f"{size:,} bytes are {size - 100:,} more than the budget of 100; largest: matrix"
    )


def test_a_float32_model_over_its_budget_is_told_what_finds_a_scheme(made):
    subject = fake(artifact=made, budget=100)
    plain = replace(subject, variant=replace(subject.variant, scheme=Choice("fp32", None)))
    assert budget.check(plain, budget.Options()).sentence.endswith(
        "; `modelkit tune tiny/int8` finds a scheme that fits"
    )


def test_without_a_budget_the_check_is_skipped_and_says_why(made):
    verdict = verdict_of(made, None)
    assert (verdict.outcome, verdict.sentence) == ("skipped", "the variant declares no budget")


def test_the_account_of_a_failure_lists_the_largest_tensors_first(made):
    rows = verdict_of(made, 1).worst
    assert [row["tensor"] for row in rows] == ["matrix", "vector", "scalar"]
    assert (rows[0]["type"], rows[0]["shape"]) == ("FLOAT", [250, 4])
    assert rows[0]["bytes"] >= 4000


def test_the_account_stops_after_a_dozen_tensors(tmp_path):
    tensors = [numpy_helper.from_array(np.ones(8 + n, np.float32), f"w{n:02}") for n in range(20)]
    made = drawn(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], [info("x")], [info("y")], tensors)
    rows = verdict_of(made, 1).worst
    assert [row["tensor"] for row in rows] == [f"w{n:02}" for n in range(19, 7, -1)]


def test_tensors_of_one_size_are_listed_by_name(tmp_path):
    tensors = [numpy_helper.from_array(np.ones(8, np.float32), name) for name in "cab"]
    made = drawn(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], [info("x")], [info("y")], tensors)
    assert [row["tensor"] for row in verdict_of(made, 1).worst] == ["a", "b", "c"]


def test_the_sentence_names_the_three_largest_tensors(made):
    assert all(name in verdict_of(made, 1).sentence for name in ("matrix", "vector", "scalar"))


def test_a_tensor_inside_an_if_body_is_in_the_account(tmp_path):
    inner = numpy_helper.from_array(np.ones(999, np.float32), "hidden")
    bodies = [
        helper.make_graph([helper.make_node("Identity", ["hidden"], ["out"])], name, [], [info("out", shape=(999,))],
                          [inner]) for name in ("then", "otherwise")
    ]  # fmt: skip
    node = helper.make_node("If", ["x"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    condition = helper.make_tensor_value_info("x", 9, [])
    made = drawn(tmp_path, [node], [condition], [info("y", shape=(999,))])
    assert [row["tensor"] for row in verdict_of(made, 1).worst] == ["hidden", "hidden"]


def test_the_data_file_counts(made):
    files = {**made.files, DATA: FileDigest("0" * 64, 5_000_000)}
    verdict = verdict_of(replace(made, files=files), 5_000_000)
    assert verdict.outcome == "failed"
    assert verdict.measured["bytes"] == 5_000_000 + size_of(made)


def test_the_tokenizer_and_other_companions_do_not_count(made):
    files = {**made.files, "tokenizer.json": FileDigest("0" * 64, 5_000_000)}
    assert verdict_of(replace(made, files=files), size_of(made)).outcome == "passed"


def test_a_pass_shows_both_sizes_in_megabytes(made):
    files = {MODEL: FileDigest("0" * 64, 12_345_678)}
    assert verdict_of(replace(made, files=files), 13_300_000).sentence == "12.35 MB of 13.30 MB"
