"""Every scheme, on the stand-in: what comes out still loads, answers alike, is smaller, and is the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import small_models
import stand_ins
from modelkit import kinds, runtime
from modelkit.graphs import files

SCHEMES = kinds.names("schemes")
CLOSEST, FOUR_BITS = 0.9, 0.6
"""Least cosine to float32, for schemes of eight bits or more and for those of four."""
WITH_OPERATORS_OF_ONNXRUNTIME = {"int8-dynamic", "matmul-nbits"}
"""ONNX's shape inference does not know them."""
FEED = small_models.feed(batch=8, sequence=20, words=600)

every_scheme = pytest.mark.parametrize("kind", SCHEMES)


class Made:
    """The finished stand-in of one scheme."""

    def __init__(self, converted: Path, folder: Path, kind: str) -> None:
        self.quantized = small_models.quantized(converted, folder / "quantized", kind)
        self.path = small_models.finished(self.quantized, folder / "finished")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in whose word table is large enough to be quantized."""
    folder = tmp_path_factory.mktemp("converted")
    return small_models.exported(stand_ins.bert(folder / "source", vocab_size=600), folder / "made")


@pytest.fixture(scope="module")
def made(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    return {kind: Made(converted, tmp_path_factory.mktemp(kind), kind) for kind in SCHEMES}


@pytest.fixture(scope="module")
def reference(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.finished(converted, tmp_path_factory.mktemp("reference") / "finished")


@every_scheme
def test_the_model_loads_with_the_same_inputs_and_outputs(made: dict[str, Made], reference: Path, kind: str) -> None:
    before, after = runtime.Session(reference, 1), runtime.Session(made[kind].path, 1)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)


@every_scheme
def test_the_model_is_valid(made: dict[str, Made], kind: str) -> None:
    onnx.checker.check_model(made[kind].path, full_check=kind not in WITH_OPERATORS_OF_ONNXRUNTIME)


@every_scheme
def test_vectors_stay_close_to_float32(made: dict[str, Made], reference: Path, kind: str) -> None:
    expected, got = (small_models.run(path, FEED)[1] for path in (reference, made[kind].path))
    assert small_models.cosines(got, expected).min() > (FOUR_BITS if kind.startswith("w4") else CLOSEST)


@every_scheme
def test_all_outputs_are_finite(made: dict[str, Made], kind: str) -> None:
    for output in small_models.run(made[kind].path, FEED):
        assert np.isfinite(output).all()


@every_scheme
def test_a_text_of_one_token_works(made: dict[str, Made], kind: str) -> None:
    assert small_models.run(made[kind].path, small_models.feed(batch=1, sequence=1))[1].shape == (1, 32)


@every_scheme
def test_twice_is_the_same_bytes(converted: Path, made: dict[str, Made], tmp_path: Path, kind: str) -> None:
    again = Made(converted, tmp_path, kind)
    assert small_models.digests(again.quantized) == small_models.digests(made[kind].quantized)
    assert again.path.read_bytes() == made[kind].path.read_bytes()


def test_another_process_gives_the_same_bytes(converted: Path, made: dict[str, Made], tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, small_models as s\n"
        "for kind in sys.argv[3:]: s.quantized(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) / kind, kind)"
    )
    environment = {
        **os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(small_models.__file__).parent),
    }  # fmt: skip
    command = [sys.executable, "-c", code, str(converted), str(tmp_path), *SCHEMES]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    for kind in SCHEMES:
        assert small_models.digests(tmp_path / kind) == small_models.digests(made[kind].quantized), kind


@every_scheme
def test_the_model_is_smaller_than_float32(made: dict[str, Made], reference: Path, kind: str) -> None:
    if kind == "fp32":
        assert made[kind].path.read_bytes() == reference.read_bytes()
    else:
        assert made[kind].path.stat().st_size < 0.75 * reference.stat().st_size


@every_scheme
def test_the_finished_model_is_one_file_that_names_no_folder(made: dict[str, Made], converted: Path, kind: str) -> None:
    assert [path.name for path in made[kind].path.parent.iterdir()] == [files.MODEL]
    content = made[kind].path.read_bytes()
    assert str(converted).encode() not in content
    assert str(Path.home()).encode() not in content or len(str(Path.home())) < 6


@every_scheme
def test_the_converted_model_is_left_alone(converted: Path, tmp_path: Path, kind: str) -> None:
    before = small_models.digests(converted)
    small_models.quantized(converted, tmp_path / "quantized", kind)
    assert small_models.digests(converted) == before
