"""Coverage: all that the scheme promises to quantize passes, one matrix left over fails by name, and what a recipe
leaves out on purpose is named. Skipped where nothing is promised. It can always run: a file that cannot be read fails.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

import small_models
import stand_ins
from modelkit import kinds
from modelkit.checks import coverage
from modelkit.graphs import MODEL, per_token, stored
from modelkit.vocabulary import Choice, Subject, Verdict
from subjects import artifact, copied, drawn, fake, good, info, redrawn

SCHEMES = kinds.names("schemes")
QUANTIZING = [kind for kind in SCHEMES if kinds.load("schemes", kind).BITS < coverage.FLOAT]
LEFT = "encoder.layer.1.output.dense"


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """A stand-in whose word table is large enough to be quantized."""
    folder = tmp_path_factory.mktemp("coverage")
    return small_models.exported(stand_ins.bert(folder / "source", vocab_size=600), folder / "made")


def verdict_of(subject: Subject, **limits: float) -> Verdict:
    return coverage.check(subject, coverage.Options(**limits))


def by(subject: Subject, kind: str, **options: object) -> Subject:
    """`subject` as a variant of the scheme `kind`."""
    chosen = Choice(kind, kinds.load("schemes", kind).Options(**options))
    return replace(subject, variant=replace(subject.variant, scheme=chosen))


def quantized(converted: Path, folder: Path, kind: str, **options: object) -> Subject:
    """A subject of what the scheme makes of `converted`."""
    options = {**small_models.FOR_NARROW_MODELS.get(kind, {}), **options}
    made = small_models.quantized(converted, folder / "quantized", kind, **options)
    small_models.finished(made, folder / "finished")
    return by(fake(artifact=artifact(folder / "finished")), kind, **options)


def product(folder: Path, *tensors: onnx.TensorProto, nodes: list[onnx.NodeProto] | None = None) -> Subject:
    """A model of one product, under the scheme w8a8-per-token."""
    nodes = nodes or [helper.make_node("MatMul", ["x", tensors[0].name], ["y"], "product")]
    return by(fake(artifact=drawn(folder, nodes, [info("x")], [info("y")], tensors)), "w8a8-per-token")


def matrix(name: str, *shape: int, dtype: type[np.generic] = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.arange(np.prod(shape)).reshape(shape).astype(dtype), name)


def test_a_good_artifact_passes_with_all_that_is_promised(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.measured["share"], verdict.measured["missed"]) == ("passed", 1.0, [])
    assert verdict.measured["matrices"] == 15
    assert verdict.sentence == "79.75% of all values have 8 bits; the recipe leaves 3 out on purpose"


def test_a_promise_kept_in_full_has_no_margin_that_hides_those_of_other_checks(subject):
    assert verdict_of(subject).margin is None


@pytest.mark.parametrize("kind", QUANTIZING)
def test_what_every_scheme_makes_keeps_its_promise(converted, tmp_path, kind):
    verdict = verdict_of(quantized(converted, tmp_path, kind))
    assert verdict.outcome == "passed", verdict.sentence
    assert verdict.measured["quantized"] > 0.9


@pytest.mark.parametrize("kind", QUANTIZING)
def test_a_float32_model_under_any_scheme_fails(subject, kind):
    verdict = verdict_of(by(replace(subject, artifact=subject.reference), kind))
    assert verdict.outcome == "failed"
    assert verdict.measured["quantized"] == 0


def test_a_matrix_that_a_quantizer_skipped_fails_and_is_named(subject, tmp_path):
    nodes = onnx.load(subject.reference.folder / MODEL, load_external_data=False).graph.node
    [skipped] = [node.name for node in nodes if any(name.startswith(f"{LEFT}.weight") for name in node.input)]
    quantize_dynamic(subject.reference.folder / MODEL, tmp_path / MODEL, weight_type=QuantType.QInt8,
                     nodes_to_exclude=[skipped], extra_options={"DefaultTensorType": 1})  # fmt: skip
    verdict = verdict_of(by(replace(subject, artifact=artifact(tmp_path)), "int8-dynamic"))
    assert verdict.outcome == "failed"
    assert f"{LEFT}.weight has 32 bits per value where 8 are promised" in verdict.sentence
    assert verdict.measured["missed"] == [f"{LEFT}.weight"]
    assert verdict.worst[0]["read_by"] == f"MatMul {skipped}"


def test_the_word_table_alone_left_in_float32_fails(converted, tmp_path, monkeypatch):
    # The scheme takes tables of this many bytes for small, and the promise is of those beyond its own limit.
    with monkeypatch.context() as patch:
        patch.setattr(per_token, "SMALL_TABLE", 10**9)
        skipping = quantized(converted, tmp_path, "w8a8-per-token")
    verdict = verdict_of(skipping)
    assert verdict.outcome == "failed"
    assert verdict.measured["missed"] == ["embeddings.word_embeddings.weight"]


def test_what_a_recipe_gives_more_bits_is_named_and_not_failed(converted, tmp_path):
    pattern = "*.attention.self.value.weight"
    verdict = verdict_of(quantized(converted, tmp_path, "w4a8-per-token", weights_8bit=(pattern,)))
    assert verdict.outcome == "passed"
    values = [f"encoder.layer.{layer}.attention.self.value.weight/int8" for layer in (0, 1)]
    assert {*values} <= {*verdict.measured["left_out_by_recipe"]}
    assert {row["bits"] for row in verdict.worst if row["tensor"] in values} == {8}
    assert all(row["left_out_by_recipe"] for row in verdict.worst)


def test_what_no_recipe_names_may_not_have_more_bits(converted, tmp_path):
    made = quantized(converted, tmp_path, "w4a8-per-token", weights_8bit=("*.attention.self.value.weight",))
    verdict = verdict_of(by(made, "w4a8-per-token"))
    assert verdict.outcome == "failed"
    assert len(verdict.measured["missed"]) == 2


def test_a_small_table_that_the_scheme_leaves_alone_is_named(subject):
    assert "embeddings.token_type_embeddings.weight" in verdict_of(subject).measured["left_out_by_recipe"]


def test_a_float32_matrix_beside_a_quantized_one_counts_by_its_values(tmp_path):
    tensors = [matrix("floats", 30, 10), matrix("integers", 10, 10, dtype=np.int8)]
    nodes = [
        helper.make_node("MatMul", ["x", "floats"], ["h"]),
        helper.make_node("DynamicQuantizeLinear", ["h"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "integers"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    assert verdict_of(product(tmp_path, *tensors, nodes=nodes)).measured["share"] == 0.25


def test_a_matrix_inside_an_if_body_is_seen(tmp_path):
    bodies = [helper.make_graph([helper.make_node("MatMul", ["x", f"w{n}"], ["o"])], f"body{n}", [], [info("o")],
                                [matrix(f"w{n}", 4, 4)]) for n in (1, 2)]  # fmt: skip
    nodes = [helper.make_node("If", ["which"], ["y"], then_branch=bodies[0], else_branch=bodies[1])]
    verdict = verdict_of(product(tmp_path, helper.make_tensor("which", TensorProto.BOOL, [], [True]), nodes=nodes))
    assert sorted(verdict.measured["missed"]) == ["w1", "w2"]


def test_a_matrix_that_a_constant_node_holds_is_seen(tmp_path):
    nodes = [helper.make_node("Constant", [], ["w"], value=matrix("w", 4, 4)),
             helper.make_node("MatMul", ["x", "w"], ["y"])]  # fmt: skip
    assert verdict_of(product(tmp_path, nodes=nodes)).measured["missed"] == ["w"]


def test_a_matrix_read_through_identity_and_transpose_is_seen(tmp_path):
    nodes = [helper.make_node("Identity", ["w"], ["same"]), helper.make_node("Transpose", ["same"], ["turned"]),
             helper.make_node("MatMul", ["x", "turned"], ["y"])]  # fmt: skip
    assert verdict_of(product(tmp_path, matrix("w", 4, 4), nodes=nodes)).measured["missed"] == ["w"]


def test_a_vector_is_no_matrix(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "v"], ["y"])]
    verdict = verdict_of(product(tmp_path, matrix("v", 4), nodes=nodes))
    assert (verdict.outcome, verdict.sentence) == (
        "skipped", "the model neither multiplies with a stored matrix nor looks rows up",
    )  # fmt: skip


@given(rows=st.integers(2, 9), blocks=st.integers(1, 4))
def test_packed_values_count_one_by_one(tmp_path_factory, rows, blocks):
    width = 32 * blocks
    tensors = [matrix("w", rows, blocks, 16, dtype=np.uint8), matrix("s", rows * blocks)]
    nodes = [helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=width, N=rows, bits=4,
                              block_size=32)]  # fmt: skip
    made = drawn(tmp_path_factory.mktemp("packed"), nodes, [info("x")], [info("y")], tensors)
    measured = verdict_of(by(fake(artifact=made), "w4a8-per-token")).measured
    assert (measured["values"], measured["bits"], measured["share"]) == (rows * width, 4, 1)


def test_a_looser_limit_of_the_manifest_holds(tmp_path):
    assert verdict_of(product(tmp_path, matrix("w", 4, 4)), share=0.0).outcome == "passed"


def test_a_scheme_that_promises_nothing_is_skipped_and_says_so(subject):
    verdict = verdict_of(by(subject, "fp32"))
    assert (verdict.outcome, verdict.sentence) == (
        "skipped", "the scheme fp32 promises no fewer bits than float32 has",
    )  # fmt: skip


def test_a_scheme_that_says_nothing_is_skipped_and_says_so(subject, monkeypatch):
    monkeypatch.delattr(kinds.load("schemes", "w8a8-per-token"), "BITS")
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.sentence) == (
        "skipped", "the scheme w8a8-per-token does not say how many bits it promises",
    )  # fmt: skip


def test_a_scheme_with_bits_and_no_exceptions_is_held_to_them(subject, monkeypatch):
    plain = SimpleNamespace(BITS=8)
    monkeypatch.setattr(kinds, "load", lambda shelf, kind: plain)
    assert "embeddings.token_type_embeddings.weight" in verdict_of(subject).measured["missed"]


def test_a_damaged_file_fails(subject, tmp_path):
    spoiled = copied(subject, tmp_path / "spoiled")
    (spoiled.artifact.folder / MODEL).write_bytes(b"no model")
    verdict = verdict_of(spoiled)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("it cannot be read: ")


def test_a_graph_that_reads_a_value_nobody_makes_is_still_looked_at(subject, tmp_path):
    def edit(proto: onnx.ModelProto) -> None:
        del proto.graph.initializer[:]

    assert verdict_of(redrawn(copied(subject, tmp_path / "bare"), edit)).outcome == "skipped"


def test_a_table_that_is_also_the_head_counts_once(tmp_path):
    nodes = [
        helper.make_node("Gather", ["w", "ids"], ["rows"]),
        helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["rows", "turned"], ["y"]),
    ]
    made = drawn(tmp_path, nodes, [info("ids", TensorProto.INT64, ("n",))], [info("y")], [matrix("w", 8, 4)])
    [found] = stored.matrices(stored.opened(made.folder / MODEL))
    assert (found.values, found.multiplied) == (32, True)
