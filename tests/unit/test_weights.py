"""weights.py: tensors out of safetensors files, one at a time, as float32; test_pickled.py has the other form."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from modelkit.errors import StageError
from modelkit.weights import Weights

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def raw(path: Path, name: str, dtype: str, shape: list[int], data: bytes) -> None:
    """A safetensors file by hand: the numpy front end cannot write every type."""
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"encoder.weight": MATRIX}, tmp_path / "model.safetensors")
    return tmp_path


def refusal(weights: Weights, name: str, shape: tuple[int, ...]) -> str:
    with pytest.raises(StageError) as caught:
        weights.read(name, shape)
    return str(caught.value)


def test_a_tensor_comes_as_it_was_stored(folder: Path) -> None:
    np.testing.assert_array_equal(Weights(folder).read("encoder.weight", (2, 3)), MATRIX)


def test_a_missing_tensor_is_told_with_the_nearest_name(folder: Path) -> None:
    told = refusal(Weights(folder), "encoder.weights", (2, 3))
    assert "tensor 'encoder.weights' is missing from model.safetensors (the nearest is 'encoder.weight')" in told


def test_a_missing_tensor_without_a_neighbour_names_the_files_alone(folder: Path) -> None:
    assert "is missing from model.safetensors;" in refusal(Weights(folder), "xyz", (1,))


def test_another_shape_than_the_config_asks_for_is_told_with_both(folder: Path) -> None:
    told = refusal(Weights(folder), "encoder.weight", (3, 2))
    assert "tensor 'encoder.weight' has shape [2, 3], config.json asks for [3, 2]" in told


def test_a_scalar_has_the_empty_shape(tmp_path: Path) -> None:
    save_file({"scale": np.array(2.5, np.float32)}, tmp_path / "a.safetensors")
    assert Weights(tmp_path).read("scale", ()) == np.float32(2.5)


def test_prefixes_are_tried_in_order(tmp_path: Path) -> None:
    save_file({"bert.a": MATRIX, "b": MATRIX + 1, "bert.b": MATRIX + 2}, tmp_path / "a.safetensors")
    weights = Weights(tmp_path, ("", "bert."))
    np.testing.assert_array_equal(weights.read("a", (2, 3)), MATRIX)
    np.testing.assert_array_equal(weights.read("b", (2, 3)), MATRIX + 1)


def test_without_its_prefix_a_tensor_is_not_found(tmp_path: Path) -> None:
    save_file({"bert.a": MATRIX}, tmp_path / "a.safetensors")
    assert "is missing" in refusal(Weights(tmp_path), "a", (2, 3))


def test_a_tensor_that_nobody_read_is_refused_unless_it_may_be_idle(tmp_path: Path) -> None:
    save_file({"bert.a": MATRIX, "pooler.b": MATRIX}, tmp_path / "a.safetensors")
    weights = Weights(tmp_path, ("", "bert."))
    with pytest.raises(StageError, match=r"the weights hold 'bert\.a' and 1 more, which the model"):
        weights.refuse_unread(())
    weights.read("a", MATRIX.shape)
    weights.refuse_unread(("pooler.*",))


def test_the_tensors_of_all_shards_are_found(tmp_path: Path) -> None:
    for number in range(3):
        save_file({f"layer.{number}": MATRIX + number}, tmp_path / f"model-{number}-of-3.safetensors")
    weights = Weights(tmp_path)
    for number in range(3):
        np.testing.assert_array_equal(weights.read(f"layer.{number}", (2, 3)), MATRIX + number)


def test_a_tensor_that_no_shard_has_is_told_with_every_file(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({f"layer.{number}": MATRIX}, tmp_path / f"{number}.safetensors")
    assert "missing from 1.safetensors, 2.safetensors" in refusal(Weights(tmp_path), "layer.3", (2, 3))


def test_a_folder_without_safetensors_is_told_with_what_to_do(tmp_path: Path) -> None:
    told = "no *.safetensors file in the source; add one to `source.files`, or pytorch_model.bin where there is none"
    with pytest.raises(StageError, match=f"^{re.escape(told)}$"):
        Weights(tmp_path)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_point_types_come_back_as_float32(tmp_path: Path, dtype: type) -> None:
    save_file({"a": MATRIX.astype(dtype)}, tmp_path / "a.safetensors")
    found = Weights(tmp_path).read("a", (2, 3))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, MATRIX)


def test_bfloat16_comes_back_as_float32(tmp_path: Path) -> None:
    stored = (MATRIX / 3).astype(ml_dtypes.bfloat16)
    raw(tmp_path / "a.safetensors", "a", "BF16", [2, 3], stored.tobytes())
    found = Weights(tmp_path).read("a", (2, 3))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored.astype(np.float32))


def test_bfloat16_needs_nobody_to_have_imported_its_type_before(tmp_path: Path) -> None:
    raw(tmp_path / "a.safetensors", "a", "BF16", [2], np.ones(2, ml_dtypes.bfloat16).tobytes())
    code = (
        "import pathlib, sys; from modelkit.weights import Weights;"
        "print(Weights(pathlib.Path(sys.argv[1])).read('a', (2,)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[1.0, 1.0]\n", "")


@pytest.mark.parametrize("dtype", ["I8", "U8", "I64", "BOOL", "F8_E4M3", "F8_E5M2"])
def test_quantized_weights_are_refused_instead_of_taken_as_numbers(tmp_path: Path, dtype: str) -> None:
    raw(tmp_path / "a.safetensors", "a", dtype, [4], bytes(4 * (8 if dtype == "I64" else 1)))
    assert f"tensor 'a' is stored as {dtype}" in refusal(Weights(tmp_path), "a", (4,))


@given(share=st.floats(0, 0.999))
def test_a_file_cut_short_is_told_wherever_it_was_cut(share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({"a": MATRIX, "b": MATRIX}, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(StageError, match=r"model\.safetensors is no complete safetensors file"):
            Weights(path.parent)
