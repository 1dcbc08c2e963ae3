"""exporters/prebuilt.py: a model that its source already offers as ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import small_models
from modelkit import kinds
from modelkit.errors import StageError
from modelkit.exporters import prebuilt
from modelkit.graphs import files

MATRIX = np.random.default_rng(0).normal(0, 1, (64, 48)).astype(np.float32)
X = {"x": np.random.default_rng(1).normal(0, 1, (3, 64)).astype(np.float32)}


def model(opset: int = 18) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "someone else's",
        [helper.make_tensor_value_info("x", 1, ["batch", 64])], [helper.make_tensor_value_info("y", 1, ["batch", 48])],
        [numpy_helper.from_array(MATRIX, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (folder := tmp_path / "source").mkdir()
    return folder


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (folder := tmp_path / "into").mkdir()
    return folder


def two_files(source: Path, name: str = "model.onnx") -> None:
    onnx.save(model(), source / name, save_as_external_data=True, location="weights.bin", size_threshold=0)


def move_data(source: Path, location: str) -> None:
    proto = onnx.load(source / "model.onnx", load_external_data=False)
    next(entry for entry in proto.graph.initializer[0].external_data if entry.key == "location").value = location
    (source / "model.onnx").write_bytes(proto.SerializeToString())


def export(source: Path, into: Path, file: str = "model.onnx") -> Path:
    prebuilt.export(small_models.manifest_of(), source, into, prebuilt.Options(file))
    return into / files.MODEL


def refusal(source: Path, into: Path, file: str = "model.onnx") -> str:
    with pytest.raises(StageError) as caught:
        export(source, into, file)
    return str(caught.value)


def test_a_single_file_is_taken_over(source: Path, into: Path) -> None:
    onnx.save(model(), source / "model.onnx")
    [y] = small_models.run(export(source, into), X)
    np.testing.assert_allclose(y, X["x"] @ MATRIX, atol=1e-5)


def test_external_data_is_taken_over_whatever_its_name(source: Path, into: Path) -> None:
    two_files(source)
    export(source, into)
    for path in source.iterdir():
        path.unlink()
    assert sorted(path.name for path in into.iterdir()) == [files.MODEL, files.DATA]
    [y] = small_models.run(into / files.MODEL, X)
    np.testing.assert_allclose(y, X["x"] @ MATRIX, atol=1e-5)


def test_a_file_in_a_folder_of_the_source_is_taken_over_with_its_data(source: Path, into: Path) -> None:
    (source / "onnx").mkdir()
    two_files(source / "onnx", "model_O4.onnx")
    [y] = small_models.run(export(source, into, "onnx/model_O4.onnx"), X)
    np.testing.assert_allclose(y, X["x"] @ MATRIX, atol=1e-5)


def quantized(into: Path, tmp_path: Path, kind: str) -> float:
    """The least cosine after the scheme `kind`."""
    small_models.quantized(into, tmp_path / "quantized", kind)
    [y] = small_models.run(small_models.finished(tmp_path / "quantized", tmp_path / "finished"), X)
    return float(small_models.cosines(y, X["x"] @ MATRIX).min())


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("kind", kinds.names("schemes"))
def test_every_scheme_takes_what_comes_out(source: Path, into: Path, tmp_path: Path, kind: str, external: bool) -> None:
    two_files(source) if external else onnx.save(model(), source / "model.onnx")
    export(source, into)
    assert quantized(into, tmp_path, kind) > 0.98


@pytest.mark.parametrize("opset", [18, 20, 21, 23])
@pytest.mark.parametrize("kind", kinds.names("schemes"))
def test_newer_opsets_work_with_every_scheme(source: Path, into: Path, tmp_path: Path, kind: str, opset: int) -> None:
    onnx.save(model(opset), source / "model.onnx")
    export(source, into)
    assert quantized(into, tmp_path, kind) > 0.98


@pytest.mark.parametrize("kind", ["w8a8-per-token", "w4a8-per-token"])
def test_an_opset_without_the_operators_of_a_scheme_is_told(
    source: Path, into: Path, tmp_path: Path, kind: str
) -> None:
    onnx.save(model(17), source / "model.onnx")
    export(source, into)
    with pytest.raises(StageError, match="the model has opset 17, integer products per token need 18"):
        quantized(into, tmp_path, kind)


def test_twice_is_the_same_bytes(source: Path, into: Path, tmp_path: Path) -> None:
    two_files(source)
    (again := tmp_path / "again").mkdir()
    export(source, into)
    export(source, again)
    assert small_models.digests(into) == small_models.digests(again)


def test_a_missing_file_is_told(source: Path, into: Path) -> None:
    assert refusal(source, into, "onnx/model.onnx").startswith("no onnx/model.onnx in the source")


def test_a_file_that_is_no_onnx_is_told(source: Path, into: Path) -> None:
    (source / "model.onnx").write_bytes(b"<html>404</html>")
    assert refusal(source, into) == (
        "model.onnx: is no readable ONNX file; the source offers it so: take another file or another revision"
    )


def test_missing_external_data_is_named(source: Path, into: Path) -> None:
    two_files(source)
    (source / "weights.bin").unlink()
    told = refusal(source, into)
    assert told == "no weights.bin in the source; model.onnx needs it: add it to `source.files`"


def test_external_data_cut_short_is_named_with_the_tensor(source: Path, into: Path) -> None:
    two_files(source)
    (source / "weights.bin").write_bytes(b"short")
    assert "weights.bin ends before tensor 'w'" in refusal(source, into)


@pytest.mark.parametrize("location", ["../secret", "onnx/../../secret", "/etc/hostname"])
def test_external_data_outside_the_source_is_refused(source: Path, into: Path, location: str) -> None:
    two_files(source)
    (source.parent / "secret").write_bytes(b"private" * 10_000)
    move_data(source, location)
    assert f"model.onnx reads {location}, which is outside the source" in refusal(source, into)


def test_a_link_that_leads_outside_the_source_is_refused(source: Path, into: Path) -> None:
    two_files(source)
    (source / "weights.bin").rename(source.parent / "secret")
    (source / "weights.bin").symlink_to(source.parent / "secret")
    assert "which is outside the source" in refusal(source, into)
