"""exporters/direct.py: safetensors to ONNX without torch, the same bytes wherever it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import small_models
import stand_ins
from modelkit import kinds
from modelkit.errors import StageError
from modelkit.graphs.files import DATA, MODEL


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return stand_ins.bert(tmp_path / "source")


def refusal(source: Path, into: Path) -> str:
    with pytest.raises(StageError) as caught:
        small_models.exported(source, into)
    return str(caught.value)


def test_twice_is_the_same_bytes(source: Path, tmp_path: Path) -> None:
    one, other = (small_models.exported(source, tmp_path / name) for name in ("one", "other"))
    assert small_models.digests(one) == small_models.digests(other)


def test_another_process_in_another_folder_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    here = small_models.exported(source, tmp_path / "here")
    code = "import sys, pathlib, small_models as s; s.exported(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    for seed in ("1", "2"):
        there = tmp_path / f"there-{seed}"
        environment = {
            **os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": "Asia/Tokyo",
            "PYTHONPATH": str(Path(small_models.__file__).parent),
        }  # fmt: skip
        subprocess.run([sys.executable, "-c", code, str(source), str(there)], cwd=tmp_path, env=environment, check=True)
        assert small_models.digests(there) == small_models.digests(here)


def test_another_source_folder_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(source, tmp_path / "a much longer name with spaces and ümlauts" / "source")
    one, other = (small_models.exported(s, tmp_path / f"made{n}") for n, s in enumerate((source, moved)))
    assert small_models.digests(one) == small_models.digests(other)


def test_shards_give_the_bytes_of_one_file(source: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    sharded = stand_ins.bert(tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    for number, (name, array) in enumerate(stand_ins.bert_weights(stand_ins.BERT).items()):
        save_file({name: array}, sharded / f"model-{number}.safetensors")
    one, other = (small_models.exported(s, tmp_path / f"made{n}") for n, s in enumerate((source, sharded)))
    assert small_models.digests(one) == small_models.digests(other)


def test_no_absolute_path_is_in_the_bytes(source: Path, tmp_path: Path) -> None:
    made = small_models.exported(source, tmp_path / "made")
    for name in (MODEL, DATA):
        content = (made / name).read_bytes()
        for needle in (str(tmp_path), str(Path.home()), str(Path.cwd())):
            # "/" alone may well occur among weights.
            if len(needle) > 4:
                assert needle.encode() not in content


def test_every_node_and_tensor_has_a_name_of_its_own(source: Path, tmp_path: Path) -> None:
    graph = onnx.load(small_models.exported(source, tmp_path / "made") / MODEL).graph
    nodes = [node.name for node in graph.node]
    values = [name for node in graph.node for name in node.output] + [tensor.name for tensor in graph.initializer]
    assert "" not in nodes
    assert len(set(nodes)) == len(nodes)
    assert len(set(values)) == len(values)


def test_weights_keep_the_names_of_the_checkpoint(source: Path, tmp_path: Path) -> None:
    graph = onnx.load(small_models.exported(source, tmp_path / "made") / MODEL).graph
    assert set(stand_ins.bert_weights(stand_ins.BERT)) <= {tensor.name for tensor in graph.initializer}


def test_the_model_is_valid(source: Path, tmp_path: Path) -> None:
    onnx.checker.check_model(small_models.exported(source, tmp_path / "made") / MODEL, full_check=True)


def test_safetensors_under_the_name_of_a_pickle_are_no_pickle(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    assert "pytorch_model.bin is no complete file of torch.save" in refusal(source, tmp_path / "made")


def test_a_source_without_weights_is_told(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").unlink()
    assert "no *.safetensors file in the source" in refusal(source, tmp_path / "made")


def test_a_missing_config_is_told(source: Path, tmp_path: Path) -> None:
    (source / "config.json").unlink()
    assert refusal(source, tmp_path / "made") == "no config.json in the source; add it to `source.files`"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "config.json is no JSON"),
        (b"\xff\xfe{}", "config.json is no JSON"),
        (b"[]", "config.json holds no JSON object"),
        (b"{}", "config.json has no model_type"),
        (b'{"model_type": 7}', "config.json has no model_type"),
        (b'{"model_type": "../../bert"}', "config.json has the model_type '../../bert', `export: direct` knows only "),
    ],
)
def test_a_config_that_says_nothing_usable_is_told(source: Path, tmp_path: Path, content: bytes, told: str) -> None:
    (source / "config.json").write_bytes(content)
    assert refusal(source, tmp_path / "made").startswith(told)


def test_a_name_with_an_underscore_is_found_on_the_shelf(source: Path, tmp_path: Path) -> None:
    (source / "config.json").write_text(json.dumps({**stand_ins.BERT, "model_type": "no_such_model"}))
    assert "the model_type 'no_such_model', " in refusal(source, tmp_path / "made")
    (source / "config.json").write_text(json.dumps({**stand_ins.BERT, "model_type": "deberta_v2"}))
    assert "query_proj.weight' is missing" in refusal(source, tmp_path / "again")


@pytest.mark.parametrize("model_type", ["bart", "gpt2", "brt"])
def test_a_model_type_that_direct_does_not_know_is_told_with_the_exporters_that_may(
    source: Path, tmp_path: Path, model_type: str
) -> None:
    (source / "config.json").write_text(json.dumps({**stand_ins.BERT, "model_type": model_type}))
    said, _, hint = refusal(source, tmp_path / "made").partition("; ")
    assert said.endswith(f"'{model_type}', `export: direct` knows only {', '.join(kinds.names('architectures'))}")
    assert hint.startswith("optimum may know it (`export: optimum`); else use `export: prebuilt` with an ONNX file")
    assert "did you mean" not in said
    assert "direct" not in hint
