"""runtime.py: onnxruntime behind one door."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import small_models
import stand_ins
from modelkit import runtime
from modelkit.errors import CheckError, StageError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtime")
    return small_models.exported(stand_ins.bert(folder / "source"), folder / "made") / "model.onnx"


@pytest.fixture(scope="module")
def session(path: Path) -> runtime.Session:
    return runtime.Session(path, 1)


def test_inputs_and_outputs_come_with_type_and_shape(session: runtime.Session) -> None:
    assert session.inputs["input_ids"] == ("tensor(int64)", ["batch", "sequence"])
    assert session.outputs["sentence_embedding"] == ("tensor(float)", ["batch", 32])


def test_all_outputs_come_in_the_graphs_order(session: runtime.Session) -> None:
    hidden, vector = session.run(small_models.feed(batch=2, sequence=3))
    assert (hidden.shape, vector.shape) == ((2, 3, 32), (2, 32))


def test_named_outputs_come_alone(session: runtime.Session) -> None:
    [vector] = session.run(small_models.feed(), ["sentence_embedding"])
    np.testing.assert_array_equal(vector, session.run(small_models.feed())[1])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing_that_matters(path: Path, session: runtime.Session, threads: int) -> None:
    other = runtime.Session(path, threads)
    for one, two in zip(session.run(small_models.feed()), other.run(small_models.feed()), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_one_session_gives_the_same_bits_again(session: runtime.Session) -> None:
    one, other = (session.run(small_models.feed())[1].tobytes() for _ in range(2))
    assert one == other


# What goes wrong


@pytest.mark.parametrize("content", [None, b"", b"not onnx"])
def test_what_is_no_model_is_told_in_one_line_with_its_place(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(StageError) as caught:
        runtime.Session(tmp_path / "bad.onnx")
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'bad.onnx'}: onnxruntime cannot load it: ")
    assert "\n" not in told
    assert "ONNXRuntimeError" not in told


def test_a_model_without_its_data_file_is_told(path: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(path.read_bytes())
    with pytest.raises(StageError, match=r"onnxruntime cannot load it: .*model\.onnx\.data"):
        runtime.Session(tmp_path / "model.onnx")


@pytest.mark.parametrize("change", ["type", "rank", "name", "output"])
def test_a_feed_that_does_not_fit_is_a_check_that_could_not_run(session: runtime.Session, change: str) -> None:
    feed, outputs = small_models.feed(), None
    if change == "type":
        feed["input_ids"] = feed["input_ids"].astype(np.float32)
    elif change == "rank":
        feed["input_ids"] = feed["input_ids"][0]
    elif change == "name":
        feed["odd"] = feed["input_ids"]
    else:
        outputs = ["odd"]
    with pytest.raises(CheckError, match="onnxruntime could not run the model: ") as caught:
        session.run(feed, outputs)
    assert "\n" not in str(caught.value)


def test_ids_beyond_the_table_are_a_check_that_could_not_run(session: runtime.Session) -> None:
    with pytest.raises(CheckError, match="out of data bounds"):
        session.run({name: array + 1000 for name, array in small_models.feed().items()})


# The rest


def test_the_quantizers_recommendation_is_the_only_thing_that_is_silenced(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filters = list(logging.getLogger().filters)
    runtime.quantize_dynamic(path, tmp_path / "quantized.onnx", per_channel=True, reduce_range=False)
    assert logging.getLogger().filters == filters
    logging.getLogger().warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


def test_the_processor_is_described_in_json_built_ins() -> None:
    found = runtime.cpu()
    assert json.loads(json.dumps(dict(found))) == found
    assert set(found) == {"machine", "system", "features", "cores"}
    assert found["cores"] >= 1


def test_importing_the_module_imports_no_onnxruntime() -> None:
    code = "import sys, modelkit.runtime; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_what_folding_freed_is_given_back(tmp_path: Path) -> None:
    # 120 chains of constants, a megabyte each step, that onnxruntime folds to numbers when it loads the model.
    def draw(drawing: small_models.Drawing) -> ir.Value:
        tape, y = drawing.tape, drawing.x
        for chain in range(120):
            large = tape.node(f"large{chain}", "Expand", tape.constant(chain / 7, np.float32), tape.ints(512, 512))
            large = tape.node(f"half{chain}", "Mul", large, tape.constant(0.5, np.float32))
            y = tape.node(f"y{chain}", "Add", y, tape.node(f"sum{chain}", "ReduceSum", large, keepdims=0))
        return y

    folder = small_models.graph(tmp_path / "folding", ("n", 4), draw, ("n", 4))
    code = (
        "import sys, pathlib; from modelkit import runtime\n"
        "told = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "import onnxruntime; before = told(); session = runtime.Session(pathlib.Path(sys.argv[1]), 1)\n"
        "print(told() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder / "model.onnx")], capture_output=True, check=True)
    assert int(done.stdout) < 40e6
