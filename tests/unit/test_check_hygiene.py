"""Hygiene: each way in which a folder holds, runs or reaches for what it should not fails, and the rest passes."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelkit.checks import hygiene, outputs
from modelkit.graphs import DATA, MODEL
from modelkit.vocabulary import Artifact, Subject, Verdict
from subjects import artifact, copied, drawn, fake, good, info, redrawn
from writers import in_matrix

CONDITION = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("acme", 1), helper.make_opsetid("local", 1)]
MACHINE = "/home/alice/models/minilm/model.py"


@pytest.fixture
def subject(tmp_path_factory, tmp_path) -> Subject:
    return copied(good(tmp_path_factory.getbasetemp()), tmp_path / "copy")


def verdict_of(subject: Subject) -> Verdict:
    return hygiene.check(subject, hygiene.Options())


def of(made: Artifact) -> Verdict:
    return verdict_of(fake(artifact=made))


def fails_with(verdict: Verdict, *sentences: str) -> bool:
    return (verdict.outcome, verdict.sentence) == ("failed", "; ".join(sentences))


def again(folder: Path) -> Verdict:
    """The verdict on `folder` as if it had been built as it is."""
    return of(artifact(folder))


def external(location: str | None, offset: str = "0", length: str = "16") -> onnx.TensorProto:
    """A float32[4] stored outside the file."""
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entries = {"location": location, "offset": offset, "length": length}
    for key, value in entries.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return tensor


def adding(tensor: onnx.TensorProto, folder: Path) -> Artifact:
    """A model that adds `tensor`, with a data file of 16 bytes beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA).write_bytes(bytes(16))
    return drawn(folder, [helper.make_node("Add", ["x", "weight"], ["y"])], [info("x")], [info("y")], [tensor])


def branches(*nodes: onnx.NodeProto) -> onnx.NodeProto:
    """An `If` of which both bodies are `nodes`, from `x` to `out`."""
    bodies = [helper.make_graph(list(nodes), name, [], [info("out")]) for name in ("then", "otherwise")]
    return helper.make_node("If", ["condition"], ["y"], then_branch=bodies[0], else_branch=bodies[1])


def calling(folder: Path, *nodes: onnx.NodeProto, inputs: tuple[str, ...] = ("x",)) -> Artifact:
    """A model that calls a function of its own, made of `nodes`."""
    function = helper.make_function("local", "Own", list(inputs), ["out"], list(nodes), OPSETS)
    call = helper.make_node("Own", list(inputs), ["y"], domain="local")
    given = [CONDITION if name == "condition" else info(name) for name in inputs]
    return drawn(folder, [call], given, [info("y")], functions=[function], opset_imports=OPSETS)


def test_a_good_artifact_passes(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.sentence) == ("passed", "5 files, as built")


# -- the files are those that were built


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "SHA256SUMS", "modelkit.json"])
def test_an_edited_file_fails(subject, name):
    with (subject.artifact.folder / name).open("a") as file:
        file.write(" ")
    assert fails_with(verdict_of(subject), f"{name} is not the file that was built")


def test_an_edited_model_fails_though_it_still_loads(subject):
    redrawn(subject, lambda model: setattr(model, "producer_version", "2"))
    assert fails_with(verdict_of(subject), "model.onnx is not the file that was built")


def test_an_extra_file_fails(subject):
    (subject.artifact.folder / "notes.txt").write_text("hello")
    assert fails_with(verdict_of(subject), "notes.txt is not the file that was built")


def test_an_extra_file_in_a_folder_below_fails(subject):
    (subject.artifact.folder / "onnx").mkdir()
    (subject.artifact.folder / "onnx" / "model.onnx").write_bytes(b"\x08\x09")
    assert fails_with(verdict_of(subject), "onnx/model.onnx is not the file that was built")


def test_a_missing_file_fails(subject):
    (subject.artifact.folder / "config.json").unlink()
    assert fails_with(verdict_of(subject), "config.json is not the file that was built")


def test_a_missing_model_fails_and_is_no_crash(subject):
    (subject.artifact.folder / MODEL).unlink()
    assert fails_with(verdict_of(subject), "model.onnx is not the file that was built")


def test_a_symlink_in_the_folder_fails(subject, tmp_path):
    (tmp_path / "elsewhere.json").write_text("{}")
    (subject.artifact.folder / "extra.json").symlink_to(tmp_path / "elsewhere.json")
    assert "extra.json is a symlink or a special file" in verdict_of(subject).sentence


def test_every_problem_is_named(subject):
    (subject.artifact.folder / "config.json").unlink()
    (subject.artifact.folder / "notes.txt").write_text("hello")
    assert fails_with(
        verdict_of(subject), "config.json is not the file that was built", "notes.txt is not the file that was built"
    )


# -- no pickle


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".joblib", ".PKL"])
def test_a_pickle_by_its_suffix_fails_even_if_it_was_built(subject, suffix):
    (subject.artifact.folder / f"weights{suffix}").write_text("whatever")
    verdict = again(subject.artifact.folder)
    assert fails_with(verdict, f"weights{suffix} may be a pickle, which runs code when it is read")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_by_its_content_fails_under_any_name(subject, protocol):
    (subject.artifact.folder / "vocab.txt").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    verdict = again(subject.artifact.folder)
    assert fails_with(verdict, "vocab.txt may be a pickle, which runs code when it is read")


def test_a_pickle_in_a_folder_below_fails(subject):
    (subject.artifact.folder / "deep").mkdir()
    (subject.artifact.folder / "deep" / "a.pkl").write_text("")
    assert "a.pkl may be a pickle" in again(subject.artifact.folder).sentence


# -- no escaping path


def test_external_data_in_the_folder_passes(tmp_path):
    assert of(adding(external(DATA), tmp_path)).outcome == "passed"


@pytest.mark.parametrize("location", ["../secret", "sub/../../secret", "absolute", "missing.data", "", ".", None])
def test_external_data_that_is_no_file_of_the_folder_fails(tmp_path, location):
    folder = tmp_path / "model"
    (tmp_path / "secret").write_bytes(bytes(16))
    place = str(tmp_path / "secret") if location == "absolute" else location
    verdict = of(adding(external(place), folder))
    assert verdict.outcome == "failed"
    expected = f"tensor weight is stored at {place or ''}, which is not a file of this folder"
    assert verdict.sentence.startswith(expected)


def test_external_data_behind_a_symlink_fails(tmp_path):
    folder = tmp_path / "model"
    made = adding(external("link.data"), folder)
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "link.data").symlink_to(tmp_path / "secret")
    assert "tensor weight is stored at link.data, which is not a file of this folder" in of(made).sentence


def test_external_data_behind_a_symlink_inside_the_folder_fails(tmp_path):
    made = adding(external("link.data"), tmp_path)
    (tmp_path / "link.data").symlink_to(tmp_path / DATA)
    assert "tensor weight is stored at link.data, which is not a file of this folder" in of(made).sentence


def test_external_data_in_a_linked_folder_fails(tmp_path):
    folder = tmp_path / "model"
    made = adding(external("sub/secret"), folder)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(bytes(16))
    (folder / "sub").symlink_to(tmp_path / "outside")
    assert "tensor weight is stored at sub/secret, which is not a file of this folder" in of(made).sentence


@pytest.mark.parametrize(
    ("offset", "length"), [("1", "16"), ("0", "17"), ("16", "16"), ("-16", "16"), ("0", "-1"), ("0", "many")]
)
def test_external_data_beyond_the_end_of_its_file_fails(tmp_path, offset, length):
    verdict = of(adding(external(DATA, offset, length), tmp_path))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith(f"tensor weight reaches beyond the end of {DATA}")


def test_external_data_of_a_constant_nodes_tensor_fails_as_well(tmp_path):
    nodes = [
        helper.make_node("Constant", [], ["weight"], value=external("../secret")),
        helper.make_node("Add", ["x", "weight"], ["y"]),
    ]
    verdict = of(drawn(tmp_path, nodes, [info("x")], [info("y")]))
    assert "tensor weight is stored at ../secret, which is not a file of this folder" in verdict.sentence


def test_external_data_inside_an_if_body_fails_as_well(tmp_path):
    node = branches(helper.make_node("Add", ["x", "weight"], ["out"]))
    for attribute in node.attribute:
        attribute.g.initializer.append(external("../secret"))
    verdict = of(drawn(tmp_path, [node], [info("x"), CONDITION], [info("y")]))
    assert "tensor weight is stored at ../secret" in verdict.sentence


def test_external_data_of_a_sparse_tensor_fails_as_well(tmp_path):
    made = adding(external(DATA), tmp_path)
    proto = onnx.load(tmp_path / MODEL, load_external_data=False)
    proto.graph.sparse_initializer.add(values=external("../secret"), dims=[4])
    (tmp_path / MODEL).write_bytes(proto.SerializeToString())
    assert "is stored at ../secret" in of(replace(made, files=artifact(tmp_path).files)).sentence


# -- no unknown operator domain


def foreign(output: str = "out") -> onnx.NodeProto:
    return helper.make_node("Special", ["x"], [output], domain="acme")


FOREIGN = "operators of the domain acme need code that no runtime ships"


def test_an_operator_of_a_foreign_domain_fails(tmp_path):
    made = drawn(tmp_path, [foreign("y")], [info("x")], [info("y")], opset_imports=OPSETS)
    assert fails_with(of(made), FOREIGN)


def test_a_foreign_operator_inside_an_if_body_fails(tmp_path):
    made = drawn(tmp_path, [branches(foreign())], [info("x"), CONDITION], [info("y")], opset_imports=OPSETS)
    assert fails_with(of(made), FOREIGN)


def test_a_foreign_operator_inside_a_function_fails(tmp_path):
    assert fails_with(of(calling(tmp_path, foreign())), FOREIGN)


def test_a_foreign_operator_inside_an_if_body_inside_a_function_fails(tmp_path):
    node = branches(foreign("inner"), helper.make_node("Neg", ["inner"], ["out"]))
    node.output[0] = "out"
    assert FOREIGN in of(calling(tmp_path, node, inputs=("x", "condition"))).sentence


def test_a_function_that_the_file_defines_passes_whatever_its_domain(tmp_path):
    assert of(calling(tmp_path, helper.make_node("Neg", ["x"], ["out"]))).outcome == "passed"


def test_another_operator_of_the_domain_of_an_own_function_fails(tmp_path):
    made = calling(tmp_path, helper.make_node("Other", ["x"], ["out"], domain="local"))
    assert fails_with(of(made), "operators of the domain local need code that no runtime ships")


def test_onnxruntimes_own_operators_pass(tmp_path):
    node = helper.make_node("BiasGelu", ["x", "x"], ["y"], domain="com.microsoft")
    opsets = [*OPSETS, helper.make_opsetid("com.microsoft", 1)]
    verdict = of(drawn(tmp_path, [node], [info("x")], [info("y")], opset_imports=opsets))
    assert verdict.outcome == "passed"
    assert verdict.measured["operators"] == {"com.microsoft": 1}


# -- no machine path


def mark_producer(model: onnx.ModelProto) -> None:
    model.producer_name = MACHINE


def mark_model(model: onnx.ModelProto) -> None:
    model.doc_string = MACHINE


def mark_graph(model: onnx.ModelProto) -> None:
    model.graph.doc_string = MACHINE


def mark_graph_name(model: onnx.ModelProto) -> None:
    model.graph.name = MACHINE


def mark_metadata(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="source", value=MACHINE)


def mark_graph_metadata(model: onnx.ModelProto) -> None:
    model.graph.metadata_props.add(key="source", value=MACHINE)


def mark_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].doc_string = MACHINE


def mark_node_metadata(model: onnx.ModelProto) -> None:
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f'File "{MACHINE}", line 3')


def mark_function(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="local", version=1)
    node = helper.make_node("Neg", ["a"], ["b"])
    model.functions.append(helper.make_function("local", "Own", ["a"], ["b"], [node], OPSETS[:1], doc_string=MACHINE))


MARKS = [
    mark_producer, mark_model, mark_graph, mark_graph_name, mark_metadata, mark_graph_metadata, mark_node,
    mark_node_metadata, mark_function,
]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS)
def test_a_path_of_the_machine_fails_wherever_it_stands(subject, mark):
    verdict = verdict_of(redrawn(subject, mark))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("the model carries a path of the machine it was made on: ")
    assert ";" not in verdict.sentence


@pytest.mark.parametrize(
    "text",
    ["/root/x", "made in /tmp/build", "C:\\Users\\a", "path=/Users/a/x", "'/work/x'", "/opt/x", "file:/home/a/b"],
)
def test_a_path_of_any_system_is_recognised(subject, text):
    marked = redrawn(subject, lambda model: setattr(model, "doc_string", text))
    assert verdict_of(marked).outcome == "failed"


@pytest.mark.parametrize(
    "text", ["modelkit", "https://host.example/home/page", "encoder/layer.0/tmp", "and/or", "a: \\b"]
)
def test_what_only_looks_like_a_path_passes(subject, text):
    marked = redrawn(subject, lambda model: setattr(model, "doc_string", text))
    assert verdict_of(marked).outcome == "passed"


# -- no number that is none


def holding(folder: Path, tensor: onnx.TensorProto) -> Verdict:
    """The verdict on a model that stores `tensor`."""
    node = helper.make_node("Cast", ["weight"], ["y"], to=TensorProto.FLOAT)
    return of(drawn(folder, [node], [info("x")], [info("y")], [tensor]))


def test_a_nan_among_the_scales_fails_though_no_output_shows_it(tmp_path_factory, tmp_path):
    name = "encoder.layer.0.intermediate.dense.weight/scales"
    spoiled = in_matrix(name, lambda scales: np.where(np.arange(len(scales)) == 7, np.float32("nan"), scales))(
        copied(good(tmp_path_factory.getbasetemp()), tmp_path / "spoiled")
    )
    assert outputs.check(spoiled, outputs.Options()).outcome == "passed"
    assert fails_with(verdict_of(spoiled), f"tensor {name} holds NaN")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_nan_of_any_width_fails_wherever_it_stands(tmp_path, dtype):
    array = np.zeros((3, 5), dtype)
    array[2, 4] = np.nan
    assert fails_with(holding(tmp_path, numpy_helper.from_array(array, "weight")), "tensor weight holds NaN")


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_among_weights_fails(tmp_path, value):
    array = np.float32([1, value, 0])
    verdict = holding(tmp_path, numpy_helper.from_array(array, "weight"))
    assert fails_with(verdict, "tensor weight holds infinity among its values")


def test_a_nan_that_is_written_as_a_list_of_floats_fails(tmp_path):
    tensor = helper.make_tensor("weight", TensorProto.FLOAT, [2], [1.0, float("nan")])
    assert fails_with(holding(tmp_path, tensor), "tensor weight holds NaN")


def test_a_nan_in_bfloat16_fails(tmp_path):
    tensor = TensorProto(name="weight", data_type=TensorProto.BFLOAT16, dims=[1], raw_data=b"\xc0\x7f")
    assert fails_with(holding(tmp_path, tensor), "tensor weight holds NaN")


def test_a_nan_in_a_sparse_constant_fails(tmp_path):
    values = numpy_helper.from_array(np.float32([np.nan]), "weight")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.int64([1])), [3])
    node = helper.make_node("Constant", [], ["y"], sparse_value=sparse)
    assert "tensor weight holds NaN" in of(drawn(tmp_path, [node], [info("x")], [info("y")])).sentence


def test_a_nan_in_the_data_file_fails(tmp_path):
    made = adding(external(DATA), tmp_path)
    (tmp_path / DATA).write_bytes(np.float32([0, 0, np.nan, 0]).tobytes())
    assert fails_with(of(replace(made, files=artifact(tmp_path).files)), "tensor weight holds NaN")


def test_a_nan_inside_an_if_body_fails(tmp_path):
    stored = numpy_helper.from_array(np.float32([np.nan]), "weight")
    made = branches(
        helper.make_node("Constant", [], ["weight"], value=stored), helper.make_node("Add", ["x", "weight"], ["out"])
    )
    told = of(drawn(tmp_path, [made], [info("x"), CONDITION], [info("y")])).sentence
    assert told == "tensor weight holds NaN; tensor weight holds NaN"


@pytest.mark.parametrize("value", [{"value_float": np.nan}, {"value_floats": [1.0, np.nan]}])
def test_a_nan_that_a_node_holds_as_a_float_fails(tmp_path, value):
    made = drawn(tmp_path, [helper.make_node("Constant", [], ["y"], "fixed", **value)], [info("x")], [info("y")])
    assert fails_with(of(made), f"{next(iter(value))} of Constant fixed holds NaN")


@pytest.mark.parametrize("mask", [np.triu(np.full((4, 4), -np.inf), 1), np.float32(-np.inf), np.float32([np.inf])])
def test_a_mask_of_infinity_and_zeros_passes(tmp_path, mask):
    assert holding(tmp_path, numpy_helper.from_array(np.float32(mask), "weight")).outcome == "passed"


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, 0xFFC00000])
def test_every_kind_of_nan_fails(tmp_path, bits):
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[1], raw_data=bits.to_bytes(4, "little"))
    assert fails_with(holding(tmp_path, tensor), "tensor weight holds NaN")


@given(numbers=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_any_number_passes(tmp_path_factory, numbers):
    tensor = numpy_helper.from_array(np.array(numbers, np.float32), "weight")
    assert holding(tmp_path_factory.mktemp("numbers"), tensor).outcome == "passed"


# -- a model that ONNX accepts


def test_a_model_that_the_checker_refuses_fails(tmp_path):
    verdict = of(drawn(tmp_path, [helper.make_node("Neg", ["nowhere"], ["y"])], [info("x")], [info("y")]))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("onnx.checker: ")
    assert "nowhere" in verdict.sentence


def test_an_operator_that_onnx_does_not_have_fails(tmp_path):
    verdict = of(drawn(tmp_path, [helper.make_node("Teleport", ["x"], ["y"])], [info("x")], [info("y")]))
    assert verdict.outcome == "failed"
    assert "Teleport" in verdict.sentence


@pytest.mark.parametrize("content", [b"\xff" * 64, b"", b"not a model"])
def test_a_file_that_is_no_model_fails_and_is_no_crash(subject, content):
    (subject.artifact.folder / MODEL).write_bytes(content)
    sentence = verdict_of(subject).sentence
    assert sentence.startswith("model.onnx is not the file that was built; model.onnx is ")


def test_a_truncated_model_fails_and_is_no_crash(subject):
    os.truncate(subject.artifact.folder / MODEL, 1000)
    assert verdict_of(subject).outcome == "failed"
