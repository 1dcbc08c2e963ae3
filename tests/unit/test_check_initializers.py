"""Initializers: a lean model passes, a tensor that leads nowhere or is there twice fails by name. It is never skipped:
every model stores something or nothing. It can always run: a file that cannot be read fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import small_models
import stand_ins
from modelkit import kinds
from modelkit.checks import initializers
from modelkit.graphs import MODEL
from modelkit.vocabulary import Subject, Verdict
from subjects import artifact, copied, drawn, fake, good, info, redrawn

RANDOM = np.random.default_rng(11)
BIG = initializers.SMALLEST // 4
"""As many float32 as count."""


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def verdict_of(subject: Subject, **limits: int) -> Verdict:
    return initializers.check(subject, initializers.Options(**limits))


def tensor(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def summed(folder: Path, *tensors: onnx.TensorProto, unread: int = 0) -> Verdict:
    """Of a model that reads all of `tensors` but the last `unread`."""
    read = tensors[: len(tensors) - unread]
    nodes = [helper.make_node("Shape", [one.name], [f"s{n}"]) for n, one in enumerate(read)]
    nodes.append(helper.make_node("Concat", ["x", *(f"s{n}" for n in range(len(read)))], ["y"], axis=0))
    ends = [info("x", TensorProto.INT64, ("n",))], [info("y", TensorProto.INT64, ("m",))]
    return verdict_of(fake(artifact=drawn(folder, nodes, *ends, tensors)))


def added(name: str, edit: Callable[[onnx.ModelProto, onnx.TensorProto], None]) -> Callable[[onnx.ModelProto], None]:
    """Adds a copy of the tensor `name` to a graph, after `edit` of it."""

    def apply(proto: onnx.ModelProto) -> None:
        copy = proto.graph.initializer.add()
        copy.CopyFrom(next(one for one in proto.graph.initializer if one.name == name))
        copy.name = "copy"
        edit(proto, copy)

    return apply


def read_by_first_lookup(proto: onnx.ModelProto, copy: onnx.TensorProto) -> None:
    node = next(node for node in proto.graph.node if node.op_type == "Gather")
    node.input[0] = copy.name


def test_a_good_artifact_passes_and_says_how_much_was_looked_at(subject):
    verdict = verdict_of(subject)
    assert verdict.outcome == "passed"
    assert (verdict.measured["dead_bytes"], verdict.measured["duplicate_bytes"]) == (0, 0)
    assert verdict.sentence == f"{verdict.measured['tensors']} tensors, each needed, none twice"


def test_no_waste_at_all_has_no_margin_that_hides_those_of_other_checks(subject):
    assert verdict_of(subject).margin is None


@pytest.mark.parametrize("kind", kinds.names("schemes"))
def test_what_every_scheme_makes_passes(tmp_path, kind):
    source = stand_ins.bert(tmp_path / "source", vocab_size=600, hidden_size=64, intermediate_size=2048)
    converted = small_models.exported(source, tmp_path / "made")
    small_models.finished(small_models.quantized(converted, tmp_path / "small", kind), tmp_path / "finished")
    assert verdict_of(fake(artifact=artifact(tmp_path / "finished"))).sentence.endswith("each needed, none twice")


def test_a_built_artifact_with_a_tensor_that_nobody_reads_fails_and_names_it(subject, tmp_path):
    other = copied(subject, tmp_path / "other")
    spoiled = redrawn(other, lambda proto: proto.graph.initializer.append(tensor("forgotten", 40, 40)))
    verdict = verdict_of(spoiled)
    assert verdict.outcome == "failed"
    assert (verdict.measured["dead_bytes"], verdict.measured["dead"]) == (6400, ["forgotten"])
    assert verdict.sentence.startswith("6,400 of ")
    assert "could be left out: forgotten leads to no output" in verdict.sentence


def test_a_built_artifact_with_a_weight_stored_twice_fails_and_names_both(subject, tmp_path):
    largest = max(onnx.load(subject.artifact.folder / MODEL).graph.initializer, key=lambda one: len(one.raw_data))
    other = copied(subject, tmp_path / "other")
    verdict = verdict_of(redrawn(other, added(largest.name, read_by_first_lookup)))
    assert verdict.outcome == "failed"
    assert verdict.measured["duplicate_bytes"] == len(largest.raw_data)
    assert verdict.worst[0]["why"] == f"repeats {largest.name}"


def test_a_tensor_that_only_idle_nodes_read_is_dead(tmp_path):
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["w"], ["unread"])]
    verdict = verdict_of(fake(artifact=drawn(tmp_path, nodes, [info("x")], [info("y")], [tensor("w", 99, 99)])))
    assert verdict.measured["dead"] == ["w"]


def test_a_tensor_that_only_a_body_reads_is_alive(tmp_path):
    bodies = [helper.make_graph([helper.make_node("Identity", [name], ["out"])], name, [], [info("out")])
              for name in ("one", "two")]  # fmt: skip
    node = helper.make_node("If", ["x"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    tensors = [tensor("one", 99, 99, seed=1), tensor("two", 99, 99, seed=2)]
    made = drawn(tmp_path, [node], [info("x", TensorProto.BOOL, ())], [info("y")], tensors)
    assert verdict_of(fake(artifact=made)).outcome == "passed"


def test_a_dead_tensor_inside_a_body_is_found(tmp_path):
    bodies = [helper.make_graph([helper.make_node("Identity", ["x2"], ["out"])], name, [], [info("out")],
                                [tensor(f"dead {name}", 99, 99, seed=len(name))])
              for name in ("one", "other")]  # fmt: skip
    node = helper.make_node("If", ["x"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    made = drawn(tmp_path, [node], [info("x", TensorProto.BOOL, ()), info("x2")], [info("y")])
    assert sorted(verdict_of(fake(artifact=made)).measured["dead"]) == ["dead one", "dead other"]


def test_a_weight_stored_in_two_bodies_is_a_duplicate(tmp_path):
    bodies = [helper.make_graph([helper.make_node("Identity", ["w"], ["out"])], name, [], [info("out")],
                                [tensor("w", 99, 99)]) for name in ("one", "other")]  # fmt: skip
    node = helper.make_node("If", ["x"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    made = drawn(tmp_path, [node], [info("x", TensorProto.BOOL, ())], [info("y")])
    assert verdict_of(fake(artifact=made)).measured["duplicate_bytes"] == 99 * 99 * 4


def test_what_constant_nodes_hold_counts(tmp_path):
    nodes = [helper.make_node("Constant", [], [name], value=tensor("t", 99, 99)) for name in ("a", "b")]
    nodes.append(helper.make_node("MatMul", ["a", "b"], ["y"]))
    assert verdict_of(fake(artifact=drawn(tmp_path, nodes, [], [info("y")]))).measured["duplicates"] == ["b"]


def test_what_a_function_holds_and_uses_is_alive(tmp_path):
    held = [
        helper.make_node("Constant", [], ["w"], value=tensor("t", 99, 99)),
        helper.make_node("Add", ["a", "w"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Plus", ["a"], ["b"], held, opsets[:1])
    nodes = [helper.make_node("Plus", ["x"], ["y"], domain="own")]
    made = drawn(tmp_path, nodes, [info("x")], [info("y")], functions=[function], opset_imports=opsets)
    verdict = verdict_of(fake(artifact=made))
    assert (verdict.outcome, verdict.measured["tensors"]) == ("passed", 1)


def test_a_tensor_that_is_itself_an_output_is_alive(tmp_path):
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    made = drawn(tmp_path, nodes, [info("x")], [info("y"), info("w", shape=(99, 99))], [tensor("w", 99, 99)])
    assert verdict_of(fake(artifact=made)).outcome == "passed"


@given(rows=st.integers(2, 60), columns=st.integers(2, 60))
def test_a_transposed_copy_is_a_duplicate(tmp_path_factory, rows, columns):
    weights = RANDOM.normal(size=(rows * 8, columns * 8)).astype(np.float32)
    tensors = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(weights.T.copy(), "turned")]
    measured = summed(tmp_path_factory.mktemp("turned"), *tensors).measured
    assert (measured["duplicates"], measured["duplicate_bytes"]) == (["turned"], weights.nbytes)


def test_a_transposed_copy_is_told_as_one(tmp_path):
    weights = RANDOM.normal(size=(40, 30)).astype(np.float32)
    tensors = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(weights.T.copy(), "turned")]
    assert summed(tmp_path, *tensors).worst[0]["why"] == "repeats w, transposed"


@given(seeds=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_each_copy_after_the_first_counts(tmp_path_factory, seeds):
    tensors = [tensor(f"t{n}", 32, 24, seed=seed) for n, seed in enumerate(seeds)]
    measured = summed(tmp_path_factory.mktemp("copies"), *tensors).measured
    assert measured["duplicate_bytes"] == (len(seeds) - len({*seeds})) * 32 * 24 * 4


def test_the_same_bytes_under_another_type_are_no_duplicate(tmp_path):
    one = tensor("floats", 99, 99)
    other = helper.make_tensor("integers", TensorProto.INT32, [99, 99], one.raw_data, raw=True)
    assert summed(tmp_path, one, other).outcome == "passed"


def test_vectors_of_one_number_over_and_over_are_no_duplicates(tmp_path):
    zeros = [numpy_helper.from_array(np.zeros(4096, np.int8), name) for name in "ab"]
    assert summed(tmp_path, *zeros).outcome == "passed"


def test_matrices_of_one_number_over_and_over_are_duplicates(tmp_path):
    zeros = [numpy_helper.from_array(np.zeros((64, 64), np.int8), name) for name in "ab"]
    assert summed(tmp_path, *zeros).outcome == "failed"


@pytest.mark.parametrize(("length", "outcome"), [(BIG - 1, "passed"), (BIG, "failed")])
def test_tensors_below_the_smallest_that_counts_may_be_there_twice_and_unread(tmp_path, length, outcome):
    twice = summed(tmp_path / "twice", tensor("a", length), tensor("b", length))
    unread = summed(tmp_path / "unread", tensor("a", 2), tensor("b", length), unread=1)
    assert (twice.outcome, unread.outcome) == (outcome, outcome)


def test_the_worst_are_the_five_largest(tmp_path):
    tensors = [tensor(f"t{n}", 300 + n) for n in range(7)]
    verdict = summed(tmp_path, tensor("read", 3), *tensors, unread=7)
    assert [row["tensor"] for row in verdict.worst] == ["t6", "t5", "t4", "t3", "t2"]


def test_a_looser_limit_of_the_manifest_holds(subject, tmp_path):
    other = copied(subject, tmp_path / "other")
    spoiled = redrawn(other, lambda proto: proto.graph.initializer.append(tensor("forgotten", 40, 40)))
    assert verdict_of(spoiled, dead_bytes=6400).outcome == "passed"
    assert verdict_of(spoiled, dead_bytes=6399).outcome == "failed"


def test_a_damaged_file_fails(subject, tmp_path):
    spoiled = copied(subject, tmp_path / "spoiled")
    (spoiled.artifact.folder / MODEL).write_bytes(b"no model")
    verdict = verdict_of(spoiled)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("model.onnx cannot be read: ")


def test_a_missing_data_file_fails(tmp_path):
    tensors = [tensor(name, 99, 99) for name in "ab"]
    for one in tensors:
        onnx.external_data_helper.set_external_data(one, "gone.data", 0, len(one.raw_data))
        one.ClearField("raw_data")
        one.data_location = TensorProto.EXTERNAL
    verdict = summed(tmp_path, *tensors)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("model.onnx cannot be read: ")
