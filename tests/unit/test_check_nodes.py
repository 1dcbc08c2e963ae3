"""Nodes: a column, a row and a node that a whole model hides are each found by name. What cannot run: a float32 model
that does not load, or whose own value is not a number.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from modelkit import tracing
from modelkit.checks import nodes, outputs, parity
from modelkit.errors import CheckError
from modelkit.graphs import DATA, MODEL
from modelkit.graphs.pieces import Piece
from modelkit.graphs.surgery import Surgery
from modelkit.images import DATA_URL
from modelkit.schemes import matmul_nbits
from modelkit.vocabulary import Subject, Verdict
from stand_ins.pictures import picture
from subjects import artifact, copied, good, pictures, redrawn, texts
from writers import LLAMA, T5, in_matrix, learned, swapped

WEIGHT = "encoder.layer.1.output.dense.weight"
PRODUCT = "encoder.layer.1.output.dense/product"
TABLE = "embeddings.word_embeddings.weight"


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(subject: Subject, tmp_path: Path) -> Subject:
    """`subject` with an artifact to spoil."""
    return copied(subject, tmp_path / "copy")


def verdict_of(subject: Subject, **limits: float) -> Verdict:
    return nodes.check(subject, nodes.Options(**limits))


def with_reference(subject: Subject, folder: Path, edit: Callable[[Path], Any]) -> Subject:
    """`subject` beside a float32 model whose folder was edited."""
    made = copied(replace(subject, artifact=subject.reference), folder)
    edit(made.artifact.folder)
    return replace(subject, reference=artifact(made.artifact.folder))


def edited(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Puts other values into a stored tensor of the model in a folder."""

    def write(folder: Path) -> None:
        graph = Surgery(folder / MODEL)
        [tensor] = [one for one in graph.tensors() if one.name == name]
        graph.put(tensor, edit(graph.array(tensor)))
        graph.save()

    return write


def renamed(prefix: str) -> Callable[[onnx.ModelProto], None]:
    """Gives every value that a node makes another name."""

    def edit(proto: onnx.ModelProto) -> None:
        made = {name for node in proto.graph.node for name in node.output}
        for node in proto.graph.node:
            for names in (node.input, node.output):
                names[:] = [prefix + name if name in made else name for name in names]
        for output in proto.graph.output:
            output.name = prefix + output.name

    return edit


def exchanged(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        if node.op_type == old:
            node.op_type = new
            del node.attribute[:]


def far(made: list[Any], exact: list[Any], *, is_table: bool = False) -> nodes.Far:
    piece = Piece("value", (), (), (), (), (), "MatMul", 0, 0)
    return nodes._far("model", piece, [np.asarray(one) for one in made], [np.asarray(one) for one in exact], is_table)


# Verdicts


def test_a_good_artifact_passes_with_every_matrix_and_the_worst_five(subject):
    verdict = verdict_of(subject)
    assert verdict.outcome == "passed"
    assert verdict.measured["nodes"] == 12
    errors = [row["error"] for row in verdict.worst]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == 5
    assert errors[0] == pytest.approx(verdict.measured["column_max"], abs=1e-6)
    json.dumps(asdict(verdict), allow_nan=False)


def test_a_float32_model_has_no_node_that_differs(subject):
    verdict = verdict_of(replace(subject, artifact=subject.reference))
    assert verdict.outcome == "passed"
    assert set(verdict.measured.values()) == {0}


@pytest.mark.parametrize(
    ("variant", "limit"),
    [("int4", "column_max"), ("int4", "row_max"), ("int8", "column_max_8bit"), ("int8", "row_max_8bit")],
)
def test_each_limit_can_fail_alone(tmp_path_factory, variant, limit):
    verdict = verdict_of(learned(tmp_path_factory.getbasetemp(), LLAMA, variant), **{limit: 1e-4})
    assert verdict.outcome == "failed"
    assert verdict.sentence.split()[0] == limit
    assert ";" not in verdict.sentence


def test_an_error_that_four_bits_may_have_fails_in_eight(tmp_path_factory, tmp_path):
    four = learned(tmp_path_factory.getbasetemp(), LLAMA, "int4")
    assert verdict_of(four).measured["column_max"] > nodes.Options().column_max_8bit / 2
    assert verdict_of(four).measured["column_max_8bit"] == 0
    eight = copied(learned(tmp_path_factory.getbasetemp(), LLAMA, "int8"), tmp_path / "coarse")
    name = "layers.0.mlp.gate_proj.weight"
    coarse = in_matrix(f"{name}/int8", lambda codes: (codes.astype(np.int16) // 16 * 16 + 8).astype(np.int8))(eight)
    verdict = verdict_of(coarse)
    assert verdict.outcome == "failed"
    assert verdict.sentence.split()[0] == "column_max_8bit"
    assert verdict.measured["column_max"] < nodes.Options().column_max


def test_a_table_of_four_bits_is_held_to_their_limit_whoever_packed_it(subject, tmp_path):
    blocked = copied(subject, tmp_path / "blocked")
    (blocked.artifact.folder / MODEL).unlink()
    matmul_nbits.quantize(subject.reference.folder, blocked.artifact.folder, matmul_nbits.Options(block=32))
    verdict = verdict_of(replace(blocked, artifact=artifact(blocked.artifact.folder)))
    assert verdict.measured["row_max"] > 0.01
    assert verdict.measured["row_max_8bit"] == 0


def test_an_activation_function_that_is_nearly_the_right_one_fails(copy):
    verdict = verdict_of(redrawn(copy, lambda model: exchanged(model, "Gelu", "Relu")))
    assert verdict.outcome == "failed"
    assert "column_max_32bit" in verdict.sentence
    assert verdict.measured["column_max"] < nodes.Options().column_max


def test_a_column_that_became_zero_fails_by_name_though_the_whole_model_hides_it(copy):
    spoiled = in_matrix(f"{WEIGHT}/scales", lambda scales: np.where(np.arange(len(scales)) == 7, 0, scales))(copy)
    assert parity.check(spoiled, parity.Options()).outcome == "passed"
    verdict = verdict_of(spoiled)
    assert verdict.outcome == "failed"
    assert verdict.worst[0]["node"] == PRODUCT
    assert verdict.worst[0]["column"] == 7


def test_two_rows_of_a_table_that_were_exchanged_fail_though_no_text_has_these_tokens(subject, copy):
    unused = (62, 63)
    spoiled = in_matrix(TABLE, swapped(*unused))(copy)
    assert outputs.check(spoiled, outputs.Options()) == outputs.check(subject, outputs.Options())
    verdict = verdict_of(spoiled)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("row_max ")
    assert verdict.worst[0]["row"] in unused


def test_the_last_row_of_a_table_that_is_read_in_several_goes_is_looked_at(copy, monkeypatch):
    monkeypatch.setattr(nodes, "AT_ONCE", 60)
    verdict = verdict_of(in_matrix(TABLE, swapped(62, 63))(copy))
    assert verdict.worst[0]["row"] in (62, 63)


def test_a_node_that_is_no_product_is_looked_at_as_well(copy):
    verdict = verdict_of(in_matrix("encoder.layer.0.output.LayerNorm.weight", lambda gain: gain * 2)(copy))
    assert verdict.outcome == "failed"
    assert verdict.worst[0]["node"].startswith("encoder.layer.0.output.LayerNorm")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_fails(copy, value):
    verdict = verdict_of(in_matrix(f"{WEIGHT}/scales", lambda scales: np.full_like(scales, value))(copy))
    assert (verdict.outcome, verdict.sentence) == (
        "failed", f"{PRODUCT} is not finite, or has another shape (1 such)",
    )  # fmt: skip


def test_a_value_of_another_shape_fails(copy):
    def edit(proto: onnx.ModelProto) -> None:
        [node] = [one for one in proto.graph.node if PRODUCT in one.output]
        node.output[:] = ["narrow"]
        proto.graph.node.insert(
            [*proto.graph.node].index(node) + 1, helper.make_node("Unsqueeze", ["narrow", "axis"], [PRODUCT])
        )
        proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))

    verdict = verdict_of(redrawn(copy, edit))
    assert (verdict.outcome, verdict.sentence.split()[0]) == ("failed", PRODUCT)
    assert "has another shape" in verdict.sentence


def test_a_piece_that_does_not_run_fails(copy):
    verdict = verdict_of(in_matrix(f"{WEIGHT}/int8", lambda codes: codes[1:])(copy))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("the artifact's model: onnxruntime could")


def test_an_input_that_the_float32_model_does_not_have_fails(copy):
    def edit(proto: onnx.ModelProto) -> None:
        proto.graph.input[0].name = "ids"
        for node in proto.graph.node:
            node.input[:] = ["ids" if name == "input_ids" else name for name in node.input]

    assert verdict_of(redrawn(copy, edit)).sentence == (
        "the artifact's model reads ids, which the float32 model does not have"
    )


def test_a_file_that_is_no_model_fails_and_is_no_crash(copy):
    (copy.artifact.folder / MODEL).write_bytes(b"no model")
    verdict = verdict_of(copy)
    assert (verdict.outcome, verdict.sentence) == ("failed", "the artifact's model: is no readable ONNX file")


def test_an_artifact_without_the_part_fails_and_is_no_crash(copy):
    (copy.artifact.folder / MODEL).unlink()
    verdict = verdict_of(copy)
    assert (verdict.outcome, verdict.sentence) == ("failed", "the artifact has no model")


@pytest.mark.parametrize("where", ["short", "elsewhere"])
def test_a_tensor_that_cannot_be_read_fails_and_is_no_crash(copy, where):
    def edit(proto: onnx.ModelProto) -> None:
        tensor = next(one for one in proto.graph.initializer if one.name.endswith(".bias"))
        if where == "short":
            tensor.raw_data = tensor.raw_data[4:]
        else:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="gone.data")

    verdict = verdict_of(redrawn(copy, edit))
    assert verdict.outcome == "failed"
    assert "stores nothing that can be read as embeddings.LayerNorm.bias" in verdict.sentence


def with_image(subject: Subject, folder: Path) -> Subject:
    """`subject` with an image in its corpus."""
    picture("RGB", 40, 40).save(folder / "one.png")
    image = b64encode((folder / "one.png").read_bytes()).decode()
    return replace(subject, corpus=(*subject.corpus, *texts(f"{DATA_URL}png;base64,{image}")))


def test_a_part_that_keeps_no_name_fails_beside_one_that_keeps_them(tmp_path_factory, tmp_path):
    subject = copied(with_image(pictures(tmp_path_factory.getbasetemp()), tmp_path), tmp_path / "copy")
    path = subject.artifact.folder / "vision_model.onnx"
    proto = onnx.load(path)
    renamed("other/")(proto)
    onnx.save(proto, path)
    verdict = verdict_of(replace(subject, artifact=artifact(subject.artifact.folder)))
    assert (verdict.outcome, verdict.sentence) == (
        "failed", "the artifact's vision_model keeps no name of a value of the float32 model",
    )  # fmt: skip


def test_a_part_that_no_text_reaches_is_an_error_and_no_verdict(tmp_path_factory):
    subject = pictures(tmp_path_factory.getbasetemp())
    with pytest.raises(CheckError, match="no text of the corpus reaches vision_model"):
        verdict_of(replace(subject, corpus=texts("one text", "another text")))


def test_an_artifact_that_keeps_no_name_is_skipped_and_says_so(copy):
    verdict = verdict_of(redrawn(copy, renamed("other/")))
    assert (verdict.outcome, verdict.sentence) == (
        "skipped", "the artifact's model keeps no name of a value of the float32 model",
    )  # fmt: skip


@pytest.mark.parametrize("name", [MODEL, DATA])
def test_a_float32_model_that_does_not_load_is_an_error_and_no_verdict(subject, tmp_path, name):
    broken = with_reference(subject, tmp_path / "float32", lambda folder: (folder / name).write_bytes(b""))
    with pytest.raises(CheckError, match="the float32 model cannot be run"):
        verdict_of(broken)


def test_a_float32_model_that_is_not_a_number_is_an_error_and_no_verdict(subject, tmp_path):
    edit = edited(WEIGHT, lambda weight: np.full_like(weight, np.nan))
    with pytest.raises(CheckError, match=f"the float32 model's own {PRODUCT} is not a number"):
        verdict_of(with_reference(subject, tmp_path / "float32", edit))


# What is looked at


@pytest.mark.parametrize("name", [LLAMA, T5])
def test_a_model_that_writes_is_looked_at_with_tables_and_products(tmp_path_factory, name):
    verdict = verdict_of(learned(tmp_path_factory.getbasetemp(), name, "int4"))
    assert verdict.outcome == "passed"
    assert 0 < verdict.measured["row_max"] < verdict.limits["row_max"]
    assert verdict.measured["column_max"] > 0


def test_both_parts_of_a_model_are_looked_at_however_few_images_there_are(tmp_path_factory, tmp_path):
    both = with_image(pictures(tmp_path_factory.getbasetemp()), tmp_path)
    spoiled = copied(both, tmp_path / "copy")
    graph = Surgery(spoiled.artifact.folder / "vision_model.onnx")
    scales = graph.scales()[0]
    graph.put(scales, graph.array(scales) * 3)
    graph.save()
    assert verdict_of(both).outcome == "passed"
    verdict = verdict_of(spoiled)
    assert (verdict.outcome, verdict.worst[0]["part"]) == ("failed", "vision_model")


def test_short_texts_are_read_and_long_ones_are_not():
    corpus = texts(*("x" * length for length in range(1, 41)))
    assert [len(text) for text in tracing.few(corpus, nodes.TEXTS)] == [1, 7, 13, 20]


# Figures


def test_the_error_by_hand():
    # Column 1 is 0.3 and 0.5 off; the mean square of all is (9 + 16 + 1 + 4) / 4.
    found = far([[[3.0, 4.3], [1.0, 1.5]]], [[[3.0, 4.0], [1.0, 2.0]]])
    assert (found.place, found.is_row) == (1, False)
    assert found.error == pytest.approx(np.sqrt((0.09 + 0.25) / 2 / 7.5))


def test_a_row_of_a_table_is_measured_along_its_columns():
    found = far([[[3.0, 4.0], [1.0, 1.0]]], [[[3.0, 4.0], [1.0, 2.0]]], is_table=True)
    assert (found.place, found.error) == (1, pytest.approx(np.sqrt(0.5 / 7.5)))


def test_a_last_axis_that_is_a_length_has_no_columns():
    found = far([np.ones((1, 3)), np.ones((1, 5))], [np.ones((1, 3)), np.ones((1, 5)) * 2])
    assert (found.place, found.error) == (0, pytest.approx(np.sqrt(5 / 8 / (23 / 8))))


def test_a_value_without_axes_is_measured():
    assert far([np.float32(3)], [np.float32(2)]).error == pytest.approx(0.5)


def test_infinity_where_float32_has_it_is_no_error_and_where_it_has_a_number_it_is():
    mask = [[0.0, -np.inf]]
    assert far([mask], [mask]).error == 0
    assert far([[[0.0, -1e9]]], [mask]).error == np.inf
    assert far([mask], [[[0.0, -1e9]]]).error == np.inf


def test_anything_in_the_place_of_zeros_is_an_error_of_one():
    assert far([[[0.0, 1e-9]]], [[[0.0, 0.0]]]).error == 1
    assert far([[[0.0, 0.0]]], [[[0.0, 0.0]]]).error == 0


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_an_error_has_no_unit(scale, seed):
    ours, theirs = np.random.default_rng(seed).normal(size=(2, 1, 4, 3))
    one, other = far([ours], [theirs]), far([scale * ours], [scale * theirs])
    assert (other.place, other.error) == (one.place, pytest.approx(one.error))
