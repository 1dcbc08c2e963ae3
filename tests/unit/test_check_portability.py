"""Portability: what every named runtime has passes, a node or a type that one lacks fails by name. It is never skipped:
every manifest names a runtime. It can always run: a file that cannot be read fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit import kernels, runtime
from modelkit.checks import portability
from modelkit.graphs import MODEL
from modelkit.vocabulary import Artifact, Subject, Verdict
from subjects import copied, drawn, fake, good, info

HERE, WEB = "onnxruntime", "onnxruntime-web"


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def verdict_of(subject: Subject, *runtimes: str) -> Verdict:
    declared = replace(subject.manifest, runtimes=runtimes or (HERE,))
    return portability.check(replace(subject, manifest=declared), portability.Options())


def judged(made: Artifact, *runtimes: str) -> Verdict:
    return verdict_of(fake(artifact=made), *(runtimes or (WEB,)))


def one(folder, op_type: str, domain: str = "", opset: int = 20, dtype: int = TensorProto.FLOAT, **fields) -> Artifact:
    """A model of one node `asked`."""
    node = helper.make_node(op_type, ["x"], ["y"], "asked", domain=domain)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return drawn(folder, [node], [info("x", dtype)], [info("y", dtype)], opset_imports=opsets, **fields)


@pytest.mark.parametrize("names", [(HERE,), (WEB,), (HERE, WEB)])
def test_a_good_artifact_runs_everywhere(subject, names):
    verdict = verdict_of(subject, *names)
    assert verdict.outcome == "passed"
    assert list(verdict.measured["runtimes"]) == list(names)
    assert {"MatMulInteger", "Gather"} <= {*verdict.measured["operators"]}


def test_a_pass_names_the_releases(subject):
    assert verdict_of(subject, HERE, WEB).sentence == (
        f"runs in onnxruntime {runtime.version()}, onnxruntime-web {kernels.of(WEB).release}"
    )


def test_an_operator_without_a_kernel_fails_and_names_node_operator_and_runtime(tmp_path):
    verdict = judged(one(tmp_path, "Rfft", domain="com.microsoft"))
    assert verdict.outcome == "failed"
    assert verdict.sentence == (
        "onnxruntime-web 1.22.0 has no kernel for com.microsoft.Rfft (version 1), which node 'asked' asks for"
    )
    assert verdict.worst[0]["operator"] == "com.microsoft.Rfft"


def test_an_operator_of_a_later_opset_than_any_kernel_fails(tmp_path):
    verdict = judged(one(tmp_path, "Relu", opset=23))
    assert "the model has opset 23, onnxruntime-web 1.22.0 reads 22 and older ones" in verdict.sentence


def test_an_ir_version_that_the_runtime_does_not_read_fails(tmp_path):
    verdict = judged(one(tmp_path, "Relu", ir_version=11))
    assert verdict.sentence == "the model has IR version 11, onnxruntime-web 1.22.0 reads 10 and older ones"


def test_an_operator_of_a_domain_that_nobody_ships_fails(tmp_path):
    assert "no kernel for own.Gadget" in judged(one(tmp_path, "Gadget", domain="own")).sentence


@pytest.mark.parametrize("dtype", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN])
def test_an_input_of_an_element_type_that_the_runtime_lacks_fails(tmp_path, dtype):
    name = TensorProto.DataType.Name(dtype)
    verdict = judged(one(tmp_path, "Identity", dtype=dtype))
    assert f"input x has the element type {name}, which onnxruntime-web 1.22.0 does not know" in verdict.sentence


def test_a_cast_to_an_element_type_that_the_runtime_lacks_fails(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["h"], "down", to=TensorProto.BFLOAT16),
             helper.make_node("Cast", ["h"], ["y"], "up", to=TensorProto.FLOAT)]  # fmt: skip
    verdict = judged(drawn(tmp_path, nodes, [info("x")], [info("y")]))
    assert verdict.sentence.startswith("output of node down has the element type BFLOAT16")


def test_a_stored_tensor_of_an_element_type_that_the_runtime_lacks_fails(tmp_path):
    stored = helper.make_tensor("w", TensorProto.BFLOAT16, [1], [0])
    nodes = [helper.make_node("Cast", ["w"], ["h"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "h"], ["y"])]
    verdict = judged(drawn(tmp_path, nodes, [info("x")], [info("y")], [stored]))
    assert verdict.sentence.startswith("tensor w has the element type BFLOAT16")


def test_a_node_inside_a_body_is_looked_at(tmp_path):
    bodies = [
        helper.make_graph([helper.make_node("Rfft", ["x"], ["o"], f"inner {n}", domain="com.microsoft")], f"b{n}", [],
                          [info("o")]) for n in (1, 2)
    ]  # fmt: skip
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    made = drawn(tmp_path, nodes, [info("c", TensorProto.BOOL, ()), info("x")], [info("y")], opset_imports=opsets)
    assert {row["node"] for row in judged(made).worst} == {"inner 1", "inner 2"}


def test_a_function_of_the_model_needs_no_kernel_but_its_nodes_do(tmp_path):
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("own", 1)]

    def calling(op_type: str, domain: str) -> Artifact:
        body = [helper.make_node(op_type, ["a"], ["b"], "inside", domain=domain)]
        function = helper.make_function("own", "Thing", ["a"], ["b"], body, opsets[:2])
        nodes = [helper.make_node("Thing", ["x"], ["y"], "call", domain="own")]
        return drawn(tmp_path / op_type, nodes, [info("x")], [info("y")], functions=[function], opset_imports=opsets)

    assert judged(calling("Neg", "")).outcome == "passed"
    assert [row["node"] for row in judged(calling("Rfft", "com.microsoft")).worst] == ["inside"]


def test_an_operator_that_onnx_defines_by_others_needs_no_kernel(tmp_path):
    assert "Mish" not in kernels.of(WEB).kernels[""]
    assert judged(one(tmp_path, "Mish")).outcome == "passed"


def test_a_constant_needs_no_kernel(tmp_path):
    nodes = [helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.ones(1, np.float32))),
             helper.make_node("Add", ["x", "w"], ["y"])]  # fmt: skip
    assert judged(drawn(tmp_path, nodes, [info("x")], [info("y")])).outcome == "passed"


def test_the_other_name_of_onnxs_own_domain_is_the_same_domain(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")
    made = drawn(tmp_path, [node], [info("x")], [info("y")], opset_imports=[helper.make_opsetid("ai.onnx", 20)])
    assert judged(made, HERE, WEB).outcome == "passed"


def test_a_model_that_the_runtime_here_refuses_fails_with_what_it_says(tmp_path):
    verdict = judged(one(tmp_path, "Rfft", domain="com.microsoft"), HERE)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith(f"onnxruntime {runtime.version()}: onnxruntime cannot load it: ")
    assert "Rfft" in verdict.sentence


def test_a_runtime_that_the_manifest_does_not_name_is_not_asked(tmp_path):
    assert judged(one(tmp_path, "Relu", ir_version=11), HERE).outcome == "passed"


def test_the_sentence_names_five_problems_and_counts_the_rest(tmp_path):
    nodes = [helper.make_node("Gadget", ["x"], [f"y{n}"], f"n{n}", domain="own") for n in range(7)]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    verdict = judged(drawn(tmp_path, nodes, [info("x")], [info("y0")], opset_imports=opsets))
    assert verdict.sentence.endswith("(and 2 more)")
    assert (len(verdict.worst), verdict.measured["problems"]) == (5, 7)


def test_each_part_of_a_model_is_looked_at(tmp_path):
    made = one(tmp_path, "Gadget", domain="own")
    (made.folder / MODEL).rename(made.folder / "text_model.onnx")
    one(tmp_path / "other", "Relu")
    (tmp_path / "other" / MODEL).rename(made.folder / "vision_model.onnx")
    assert [row["part"] for row in judged(made).worst] == ["text_model"]


def test_what_is_declared_and_what_is_known_of_it_are_part_of_the_key(subject):
    both = replace(subject.manifest, runtimes=(HERE, WEB))
    assert portability.reads(both) != portability.reads(subject.manifest)
    assert "kernels.json" in portability.reads(subject.manifest)


def test_a_damaged_file_fails(subject, tmp_path):
    spoiled = copied(subject, tmp_path / "spoiled")
    (spoiled.artifact.folder / MODEL).write_bytes(b"no model")
    verdict = verdict_of(spoiled)
    assert (verdict.outcome, verdict.sentence) == ("failed", "model.onnx is no readable ONNX file")
