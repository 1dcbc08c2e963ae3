"""Signature: what the graph declares and what comes out are what the manifest says, or the difference is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit.checks import signature
from modelkit.graphs import MODEL
from modelkit.vocabulary import Artifact, Signature, Subject, Verdict
from subjects import artifact, copied, drawn, fake, good, info, redrawn, specs

LINE = Signature(specs(x=("float32", ("batch", 4))), specs(y=("float32", ("batch", 4))))


def verdict_of(subject: Subject) -> Verdict:
    return signature.check(subject, signature.Options())


def of(made: Artifact, wanted: Signature = LINE) -> Verdict:
    return verdict_of(fake(artifact=made, signature=wanted))


def ints(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


@pytest.fixture
def subject(tmp_path_factory, tmp_path) -> Subject:
    return copied(good(tmp_path_factory.getbasetemp()), tmp_path / "copy")


def line(folder: Path, x: onnx.ValueInfoProto | None = None, y: onnx.ValueInfoProto | None = None) -> Artifact:
    return drawn(folder, [helper.make_node("Neg", ["x"], ["y"])], [x or info("x")], [y or info("y")])


def test_a_good_artifact_passes(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.sentence) == ("passed", "as declared, and as run")


def test_the_verdict_records_the_opset_and_what_is_declared(subject):
    measured = verdict_of(subject).measured["model"]
    assert measured["opset"] == {"ai.onnx": 20}
    assert measured["outputs"] == ["float32[batch, sequence, 32]", "float32[batch, 32]"]


@pytest.mark.parametrize(("limit", "value"), [("opset", 20), ("ir_version", 9)])
def test_a_model_as_new_as_the_manifest_allows_passes(subject, limit, value):
    verdict = signature.check(subject, signature.Options(**{limit: value}))
    assert (verdict.outcome, verdict.limits[limit]) == ("passed", value)


@pytest.mark.parametrize(
    ("limit", "value", "told"),
    [("opset", 19, "the opset is 20, the manifest allows 19"),
     ("ir_version", 8, "the IR version is 9, the manifest allows 8")],
)  # fmt: skip
def test_a_model_newer_than_the_manifest_allows_fails(subject, limit, value, told):
    verdict = signature.check(subject, signature.Options(**{limit: value}))
    assert (verdict.outcome, verdict.sentence) == ("failed", told)


def test_a_model_whose_opset_goes_by_its_other_name_is_held_to_the_limit_too(tmp_path):
    nodes = [helper.make_node("Neg", ["x"], ["y"], domain="ai.onnx")]
    made = drawn(tmp_path, nodes, [info("x")], [info("y")], opset_imports=[helper.make_opsetid("ai.onnx", 20)])
    verdict = signature.check(fake(artifact=made, signature=LINE), signature.Options(opset=19))
    assert verdict.sentence == "the opset is 20, the manifest allows 19"


def test_a_renamed_input_fails(subject):
    def rename(model):
        for node in model.graph.node:
            node.input[:] = ["ids" if name == "input_ids" else name for name in node.input]
        model.graph.input[0].name = "ids"

    verdict = verdict_of(redrawn(subject, rename))
    assert verdict.outcome == "failed"
    assert "the inputs are ids, attention_mask, token_type_ids" in verdict.sentence
    assert "the manifest says input_ids, attention_mask, token_type_ids" in verdict.sentence


def test_inputs_in_another_order_fail(subject):
    def swap(model):
        first, second, third = model.graph.input
        reordered = [onnx.ValueInfoProto.FromString(each.SerializeToString()) for each in (second, first, third)]
        del model.graph.input[:]
        model.graph.input.extend(reordered)

    verdict = verdict_of(redrawn(subject, swap))
    assert verdict.outcome == "failed"
    assert "the inputs are attention_mask, input_ids, token_type_ids" in verdict.sentence


def test_outputs_in_another_order_fail(subject):
    def swap(model):
        kept = [onnx.ValueInfoProto.FromString(each.SerializeToString()) for each in reversed(model.graph.output)]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    assert "the outputs are sentence_embedding, last_hidden_state" in verdict_of(redrawn(subject, swap)).sentence


def test_a_missing_input_fails(tmp_path):
    wanted = Signature(specs(x=("float32", ("batch", 4)), mask=("int64", ("batch",))), LINE.outputs)
    verdict = of(line(tmp_path), wanted)
    assert (verdict.outcome, verdict.sentence) == ("failed", "the inputs are x, the manifest says x, mask")


def test_an_input_too_many_fails(tmp_path):
    node = helper.make_node("Add", ["x", "other"], ["y"])
    verdict = of(drawn(tmp_path, [node], [info("x"), info("other")], [info("y")]))
    assert (verdict.outcome, verdict.sentence) == ("failed", "the inputs are x, other, the manifest says x")


def test_a_missing_output_fails(subject):
    verdict = verdict_of(redrawn(subject, lambda model: model.graph.output.pop(0)))
    assert verdict.outcome == "failed"
    assert "the outputs are sentence_embedding, the manifest says last_hidden_state, sentence_embedding" in (
        verdict.sentence
    )


def test_an_input_of_another_element_type_fails(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    verdict = of(drawn(tmp_path, nodes, [info("x", TensorProto.INT32)], [info("y")]))
    assert verdict.outcome == "failed"
    assert verdict.sentence == "input x is int32[batch, 4], the manifest says float32[batch, 4]"


def test_an_output_of_another_element_type_fails(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)]
    verdict = of(drawn(tmp_path, nodes, [info("x")], [info("y", TensorProto.FLOAT16)]))
    assert verdict.outcome == "failed"
    assert verdict.sentence == "output y is float16[batch, 4], the manifest says float32[batch, 4]"


def test_a_fixed_axis_where_the_manifest_names_one_fails(subject):
    def fix(model):
        for value in model.graph.input:
            value.type.tensor_type.shape.dim[1].dim_value = 128

    verdict = verdict_of(redrawn(subject, fix))
    assert verdict.outcome == "failed"
    assert "input input_ids is int64[batch, 128], the manifest says int64[batch, sequence]" in verdict.sentence


def test_an_axis_of_another_name_fails(tmp_path):
    verdict = of(line(tmp_path, info("x", shape=("rows", 4)), info("y", shape=("rows", 4))))
    assert verdict.outcome == "failed"
    assert "input x is float32[rows, 4]" in verdict.sentence


def test_another_width_fails(subject):
    wide = replace(
        subject.manifest.signatures["model"],
        outputs=specs(
            last_hidden_state=("float32", ("batch", "sequence", 32)), sentence_embedding=("float32", ("batch", 48))
        ),
    )
    verdict = verdict_of(replace(subject, manifest=replace(subject.manifest, signatures={"model": wide})))
    assert verdict.outcome == "failed"
    assert verdict.sentence == "output sentence_embedding is float32[batch, 32], the manifest says float32[batch, 48]"


def test_an_axis_too_many_fails(tmp_path):
    assert of(line(tmp_path, info("x", shape=("batch", 1, 4)), info("y", shape=("batch", 1, 4)))).outcome == "failed"


def test_every_difference_is_named(tmp_path):
    sentence = of(line(tmp_path, info("x", shape=("batch", 5)), info("y", shape=("batch", 5)))).sentence
    assert "input x" in sentence
    assert "output y" in sentence


def test_an_axis_without_name_or_length_fails(tmp_path):
    assert "input x is float32[0, 4]" in of(line(tmp_path, info("x", shape=(None, 4)))).sentence


def test_an_output_that_is_no_tensor_fails(tmp_path):
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    made = drawn(tmp_path, [helper.make_node("SequenceConstruct", ["x"], ["y"])], [info("x")], [sequence])
    verdict = of(made)
    assert verdict.outcome == "failed"
    assert verdict.sentence == "output y is undefined[], the manifest says float32[batch, 4]"


def test_a_graph_that_yields_another_shape_than_it_declares_fails(tmp_path):
    # The target shape comes from an input that no shape inference can look into.
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "swapped"], ["target"]),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    made = drawn(tmp_path, nodes, [info("x")], [info("y")], [ints("swapped", 1, 0)])
    verdict = of(made)
    assert verdict.outcome == "failed"
    assert verdict.sentence == "output y came out as float32[4, 2], the manifest says float32[batch, 4]"


def test_batch_and_sequence_in_each_others_place_fail_when_the_graph_runs(tmp_path):
    axes = ("batch", "sequence")
    wanted = Signature(specs(x=("float32", axes)), specs(y=("float32", axes)))
    nodes = [helper.make_node("Transpose", ["x"], ["y"])]
    verdict = of(drawn(tmp_path, nodes, [info("x", shape=axes)], [info("y", shape=axes)]), wanted)
    assert verdict.outcome == "failed"
    assert verdict.sentence == "output y came out as float32[5, 2], the manifest says float32[batch, sequence]"


def test_a_graph_that_yields_another_element_type_than_it_declares_fails(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)]
    assert of(drawn(tmp_path, nodes, [info("x")], [info("y")])).outcome == "failed"


def test_a_graph_that_takes_only_one_length_of_a_named_axis_fails(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "one"], ["y"])]
    verdict = of(drawn(tmp_path, nodes, [info("x")], [info("y")], [ints("one", 1, 4)]))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("it does not run with inputs of the declared shapes: ")


def test_a_graph_that_no_session_loads_fails(tmp_path):
    nodes = [helper.make_node("Teleport", ["x"], ["y"])]
    verdict = of(drawn(tmp_path, nodes, [info("x")], [info("y")]))
    assert verdict.outcome == "failed"
    assert "Teleport" in verdict.sentence


def test_an_axis_of_a_name_that_is_not_known_may_have_any_length(tmp_path):
    wanted = Signature(specs(x=("float32", ("rows", "columns"))), specs(y=("float32", ("rows", "columns"))))
    made = line(tmp_path, info("x", shape=("rows", "columns")), info("y", shape=("rows", "columns")))
    assert of(made, wanted).outcome == "passed"


def test_a_past_whose_length_was_traced_fails(tmp_path):
    # The runs had equal lengths for every axis that is neither batch nor sequence once.
    for length in signature.OTHERS_FROM:
        folder = tmp_path / str(length)
        folder.mkdir()
        past = ("batch", "past_sequence")
        wanted = Signature(specs(x=("float32", past)), specs(y=("float32", past)))
        nodes = [helper.make_node("Reshape", ["x", "traced"], ["y"])]
        made = drawn(folder, nodes, [info("x", shape=past)], [info("y", shape=past)], [ints("traced", 0, length)])
        assert of(made, wanted).outcome == "failed"


def test_both_sides_of_a_switch_are_run(tmp_path):
    def body(name, operator):
        node = helper.make_node(operator, ["x"], [f"{name}/y"], name=name)
        return helper.make_graph([node], name, [], [info(f"{name}/y", shape=("rows", "columns"))])

    wanted = Signature(specs(x=("float32", ("batch", 4)), on=("bool", (1,))), LINE.outputs)
    inputs = [info("x"), info("on", TensorProto.BOOL, (1,))]
    for number, (then, otherwise) in enumerate([("Transpose", "Identity"), ("Identity", "Transpose")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        branches = {"then_branch": body("then", then), "else_branch": body("else", otherwise)}
        made = drawn(folder, [helper.make_node("If", ["on"], ["y"], **branches)], inputs, [info("y")])
        assert of(made, wanted).outcome == "failed"
    fine = {"then_branch": body("then", "Identity"), "else_branch": body("else", "Identity")}
    made = drawn(tmp_path, [helper.make_node("If", ["on"], ["y"], **fine)], inputs, [info("y")])
    assert of(made, wanted).outcome == "passed"


def test_weights_do_not_count_as_inputs(tmp_path):
    weight = numpy_helper.from_array(np.ones(4, np.float32), "weight")
    node = helper.make_node("Add", ["x", "weight"], ["y"])
    assert of(drawn(tmp_path, [node], [info("x")], [info("y")], [weight])).outcome == "passed"


def test_a_file_that_is_no_model_fails(tmp_path):
    (tmp_path / MODEL).write_bytes(b"\xff" * 64)
    verdict = of(artifact(tmp_path))
    assert (verdict.outcome, verdict.sentence) == ("failed", "model.onnx is no readable ONNX file")


def test_a_missing_file_fails(tmp_path):
    verdict = of(artifact(tmp_path))
    assert (verdict.outcome, verdict.sentence) == ("failed", "the parts are none, the manifest says model")


def test_a_graph_that_kept_the_lengths_it_was_traced_with_fails(tmp_path):
    axes = ("batch", "sequence")
    wanted = Signature(specs(x=("float32", axes)), specs(y=("float32", axes)))
    nodes = [helper.make_node("Reshape", ["x", "traced"], ["y"])]
    made = drawn(tmp_path, nodes, [info("x", shape=axes)], [info("y", shape=axes)], [ints("traced", 2, 5)])
    verdict = of(made, wanted)
    assert verdict.outcome == "failed"
    assert "does not run with inputs of the declared shapes" in verdict.sentence
