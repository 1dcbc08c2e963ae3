"""schemes/: what each promises beyond what tests/contract asks of all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

import small_models
import stand_ins
from modelkit.errors import StageError
from modelkit.graphs import files
from modelkit.graphs.float64 import Activations
from modelkit.schemes import int8_static

SOURCE_CONFIG = {"vocab_size": 600}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in whose word table is large enough to be quantized."""
    folder = tmp_path_factory.mktemp("schemes")
    return small_models.exported(stand_ins.bert(folder / "source", **SOURCE_CONFIG), folder / "made")


FEED = small_models.feed(batch=8, sequence=20, words=600)


def vectors(converted: Path, folder: Path, kind: str, **options: Any) -> np.ndarray:
    small_models.quantized(converted, folder / "quantized", kind, **options)
    return small_models.run(small_models.finished(folder / "quantized", folder / "finished"), FEED)[1]


def stored(folder: Path) -> dict[str, tuple[str, int]]:
    return {name: (dtype, size) for name, dtype, _, size in files.account(folder / files.MODEL)}


def damaged(folder: Path, value: float) -> Path:
    """A converted model with one odd weight."""
    source = stand_ins.bert(folder / "source", **SOURCE_CONFIG)
    tensors = stand_ins.bert_weights({**stand_ins.BERT, **SOURCE_CONFIG})
    tensors["encoder.layer.0.output.dense.weight"][1, 2] = value
    save_file(tensors, source / "model.safetensors")
    return small_models.exported(source, folder / "made")


def test_fp32_changes_no_byte(converted: Path, tmp_path: Path) -> None:
    small_models.quantized(converted, tmp_path / "fp32", "fp32")
    assert small_models.digests(tmp_path / "fp32") == small_models.digests(converted)


def test_fp16_halves_every_large_tensor(converted: Path, tmp_path: Path) -> None:
    before, after = stored(converted), stored(small_models.quantized(converted, tmp_path / "fp16", "fp16"))
    large = {
        name: size for name, (dtype, size) in before.items() if dtype == "FLOAT" and size > files.INLINE_BELOW + 99
    }
    assert large
    for name, size in large.items():
        assert name not in after
        assert after[f"{name}/float16"] == ("FLOAT16", size // 2)


def test_fp16_is_as_close_as_half_precision_is(converted: Path, tmp_path: Path) -> None:
    exact = vectors(converted, tmp_path / "fp32", "fp32")
    assert np.abs(vectors(converted, tmp_path / "fp16", "fp16") - exact).max() < 1e-3


def test_fp16_computes_in_float32(converted: Path, tmp_path: Path) -> None:
    small_models.quantized(converted, tmp_path / "fp16", "fp16")
    graph = onnx.load(tmp_path / "fp16" / files.MODEL).graph
    halves = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    assert {node.op_type for node in graph.node if halves & set(node.input)} == {"Cast"}


@pytest.mark.parametrize("value", [70_000.0, np.inf, np.nan])
def test_fp16_refuses_a_weight_that_it_cannot_hold(tmp_path: Path, value: float) -> None:
    with pytest.raises(
        StageError, match=r"tensor 'encoder\.layer\.0\.output\.dense\.weight' holds NaN or values beyond"
    ):
        small_models.quantized(damaged(tmp_path, value), tmp_path / "fp16", "fp16")


@pytest.mark.parametrize("kind", ["w8a8-per-token", "w4a8-per-token"])
@pytest.mark.parametrize("value", [1e9, np.nan])
def test_integers_refuse_a_weight_that_they_cannot_hold(tmp_path: Path, kind: str, value: float) -> None:
    with pytest.raises(
        StageError, match=r"tensor 'encoder\.layer\.0\.output\.dense\.weight' holds NaN or values beyond"
    ):
        small_models.quantized(damaged(tmp_path, value), tmp_path / "integers", kind)


@pytest.mark.parametrize("kind", ["w8a8-per-token", "w4a8-per-token"])
def test_every_matrix_and_large_table_is_an_integer(converted: Path, tmp_path: Path, kind: str) -> None:
    rows = files.account(small_models.quantized(converted, tmp_path / "made", kind) / files.MODEL)
    whole = [name for name, dtype, shape, _ in rows if dtype == "FLOAT" and len(shape) == 2]
    # The tables of positions and token types are smaller than 64 KiB.
    assert sorted(whole) == ["embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"]


def test_four_bit_matrices_take_about_five_bits_a_weight(converted: Path, tmp_path: Path) -> None:
    folder = small_models.quantized(converted, tmp_path / "made", "w4a8-per-token", block=16)
    name = "encoder.layer.0.intermediate.dense.weight"
    taken = sum(size for tensor, (_, size) in stored(folder).items() if tensor.startswith(f"{name}/"))
    # 4 bits, 8/16 for zero and step, 16/32 for the scale; tensors inside the file carry their names, too.
    assert 5 * 64 * 32 / 8 <= taken <= 5 * 64 * 32 / 8 + 300


def test_sixteen_bit_activations_bring_the_vectors_nearer(converted: Path, tmp_path: Path) -> None:
    exact = vectors(converted, tmp_path / "fp32", "fp32")
    plain = vectors(converted, tmp_path / "plain", "w8a8-per-token")
    finer = vectors(converted, tmp_path / "finer", "w8a8-per-token", activations_16bit=("*",))
    assert small_models.cosines(finer, exact).mean() > small_models.cosines(plain, exact).mean()


def test_eight_bit_exceptions_bring_the_vectors_nearer(converted: Path, tmp_path: Path) -> None:
    exact = vectors(converted, tmp_path / "fp32", "fp32")
    plain = vectors(converted, tmp_path / "plain", "w4a8-per-token")
    finer = vectors(converted, tmp_path / "finer", "w4a8-per-token", weights_8bit=("*.dense.weight", "*.value.weight"))
    assert small_models.cosines(finer, exact).mean() > small_models.cosines(plain, exact).mean()


@pytest.mark.parametrize("kind", ["w8a8-per-token", "w4a8-per-token"])
def test_a_text_has_the_same_vector_alone_and_among_others(converted: Path, tmp_path: Path, kind: str) -> None:
    together = vectors(converted, tmp_path, kind)
    for row in range(len(together)):
        alone = {name: array[row : row + 1] for name, array in FEED.items()}
        vector = small_models.run(tmp_path / "finished" / files.MODEL, alone)[1][0]
        np.testing.assert_allclose(vector, together[row], atol=2e-3 if kind == "w4a8-per-token" else 1e-3)


def test_int8_dynamic_leaves_no_float_matrix(converted: Path, tmp_path: Path) -> None:
    folder = small_models.quantized(converted, tmp_path / "made", "int8-dynamic")
    ops = [node.op_type for node in onnx.load(folder / files.MODEL).graph.node]
    # Two products of activations per layer stay.
    assert ops.count("MatMul") == 4
    assert ops.count("MatMulInteger") == 12


def test_int8_dynamic_with_a_reduced_range_uses_seven_bits(converted: Path, tmp_path: Path) -> None:
    folder = small_models.quantized(converted, tmp_path / "made", "int8-dynamic", reduce_range=True)
    tensors = onnx.load(folder / files.MODEL).graph.initializer
    codes = [
        onnx.numpy_helper.to_array(t) for t in tensors if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2
    ]
    assert max(np.abs(array.astype(int)).max() for array in codes) == 64


@pytest.mark.parametrize("kind", ["int8-static", "matmul-nbits"])
def test_a_stock_quantizer_that_fails_is_told_in_one_sentence(converted: Path, tmp_path: Path, kind: str) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(converted, odd)
    model = onnx.load(odd / files.MODEL, load_external_data=False)
    model.graph.node[-1].op_type = "NoSuchOperator"
    (odd / files.MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(StageError, match="onnxruntime's quantizer cannot do this model: "):
        small_models.quantized(odd, tmp_path / "made", kind)


def test_int8_static_without_a_text_that_reaches_the_model_is_refused(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no calibration text reaches it; use a scheme that needs none"):
        int8_static.quantize(converted, tmp_path, int8_static.Options(), Activations(converted / files.MODEL, []))


def test_int8_static_quantizes_what_the_weights_are_multiplied_with_and_no_more(
    converted: Path, tmp_path: Path
) -> None:
    folder = small_models.quantized(converted, tmp_path / "made", "int8-static")
    graph = onnx.load(folder / files.MODEL).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    fed = [
        {makers.get(name) == "DequantizeLinear" for name in node.input}
        for node in graph.node
        if node.op_type == "MatMul"
    ]
    # Two products of activations per layer stay.
    assert fed.count({False}) == 4
    assert fed.count({True}) == 12


@pytest.mark.parametrize("bits", [4, 8])
def test_matmul_nbits_packs_products_and_tables(converted: Path, tmp_path: Path, bits: int) -> None:
    folder = small_models.quantized(converted, tmp_path / "made", "matmul-nbits", bits=bits, accuracy_level=4)
    nodes = [node for node in onnx.load(folder / files.MODEL).graph.node if node.domain == "com.microsoft"]
    told = [{one.name: one.i for one in node.attribute} for node in nodes if node.op_type == "MatMulNBits"]
    assert len(told) == 12
    assert {(one["bits"], one["accuracy_level"]) for one in told} == {(bits, 4)}
    assert "GatherBlockQuantized" in {node.op_type for node in nodes}


def test_int8_dynamic_says_nothing(
    converted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    small_models.quantized(converted, tmp_path / "made", "int8-dynamic")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
