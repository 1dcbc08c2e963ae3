"""architectures/clip.py against recordings of transformers' CLIPModel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import small_models
from modelkit import runtime
from modelkit.errors import StageError
from modelkit.exporters import direct
from modelkit.stages import convert
from modelkit.tasks import image_feature_extraction as task
from modelkit.vocabulary import Choice, Manifest
from small_models import digests, manifest_of
from stand_ins.clip import BASE_PATCH32, clip, settings_of

RECORDED = json.loads((Path(__file__).parents[1] / "references" / "clip.json").read_text())["models"]


def manifest(max_tokens: int = 24) -> Manifest:
    made = manifest_of()
    object.__setattr__(made, "task", Choice("image-feature-extraction", task.Options(task.Text(max_tokens))))
    return made


def exported(source: Path, into: Path, max_tokens: int = 24) -> Path:
    into.mkdir(parents=True)
    direct.export(manifest(max_tokens), source, into, direct.Options())
    return into


def run(folder: Path, part: str, **feed: Any) -> np.ndarray:
    return small_models.run(folder / part / "model.onnx", feed)[0]


def with_config(folder: Path, **changed: Any) -> Path:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return folder


def refusal(source: Path, into: Path) -> str:
    with pytest.raises(StageError) as caught:
        exported(source, into)
    return str(caught.value)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return clip(tmp_path / "source")


# The reference


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["name"])
def test_text_embeddings_are_those_of_the_reference(tmp_path: Path, row: dict[str, Any]) -> None:
    made = exported(clip(tmp_path / "source", row["seed"], **row["config"]), tmp_path / "made")
    ids = np.array(row["input_ids"])
    found = run(made, "text_model", input_ids=ids, attention_mask=(ids != 0).astype(np.int64))
    np.testing.assert_allclose(found, row["text_embeds"], atol=2e-6)


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["name"])
def test_image_embeddings_are_those_of_the_reference(tmp_path: Path, row: dict[str, Any]) -> None:
    made = exported(clip(tmp_path / "source", row["seed"], **row["config"]), tmp_path / "made")
    side = row["config"].get("vision_config", {}).get("image_size", 32)
    pixels = np.random.default_rng(5).standard_normal((3, 3, side, side), np.float32)
    found = run(made, "vision_model", pixel_values=pixels)
    np.testing.assert_allclose(found, row["image_embeds"], atol=2e-6)


def test_a_text_is_the_same_alone_and_padded_with_anything(source: Path, tmp_path: Path) -> None:
    made = exported(source, tmp_path / "made")
    alone = run(made, "text_model", input_ids=np.array([[48, 5, 9, 49]]), attention_mask=np.ones((1, 4), np.int64))
    for pad in (0, 7, 49):
        ids, mask = np.array([[48, 5, 9, 49, pad, pad]]), np.array([[1, 1, 1, 1, 0, 0]])
        np.testing.assert_allclose(run(made, "text_model", input_ids=ids, attention_mask=mask), alone, atol=1e-6)


def test_the_masked_start_of_a_text_is_not_looked_at(source: Path, tmp_path: Path) -> None:
    made, mask = exported(source, tmp_path / "made"), np.array([[0, 1, 1, 1]])
    one, other = (
        run(made, "text_model", input_ids=np.array([[first, 5, 9, 49]]), attention_mask=mask) for first in (1, 30)
    )
    np.testing.assert_array_equal(one, other)


def test_a_text_without_its_end_has_a_finite_vector(source: Path, tmp_path: Path) -> None:
    made = exported(with_config(source, text_config=settings_of(text_config={"eos_token_id": 49})["text_config"]),
                    tmp_path / "made")  # fmt: skip
    ids = np.ones((2, 5), np.int64)
    for mask in (np.ones_like(ids), np.zeros_like(ids)):
        assert np.isfinite(run(made, "text_model", input_ids=ids, attention_mask=mask)).all()


# The files


def test_the_parts_are_valid_and_take_and_give_what_they_should(source: Path, tmp_path: Path) -> None:
    made = exported(source, tmp_path / "made")
    for part in ("text_model", "vision_model"):
        onnx.checker.check_model(made / part / "model.onnx", full_check=True)
    text, vision = (runtime.Session(made / part / "model.onnx", 1) for part in ("text_model", "vision_model"))
    assert {name: axes for name, (_, axes) in text.inputs.items()} == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
    }
    assert vision.inputs == {"pixel_values": ("tensor(float)", ["batch", 3, 32, 32])}
    assert text.outputs == {"text_embeds": ("tensor(float)", ["batch", 16])}
    assert vision.outputs == {"image_embeds": ("tensor(float)", ["batch", 16])}


def test_twice_is_the_same_bytes(source: Path, tmp_path: Path) -> None:
    one, other = (exported(source, tmp_path / name) for name in ("one", "other"))
    assert digests(one) == digests(other)


def test_every_node_and_tensor_has_a_name_of_its_own(source: Path, tmp_path: Path) -> None:
    made = exported(source, tmp_path / "made")
    for part in ("text_model", "vision_model"):
        graph = onnx.load(made / part / "model.onnx", load_external_data=False).graph
        values = [name for node in graph.node for name in node.output] + [tensor.name for tensor in graph.initializer]
        assert len(set(values)) == len(values)
        assert all(node.name for node in graph.node)


def test_a_part_holds_its_own_weights_only(source: Path, tmp_path: Path) -> None:
    made = exported(source, tmp_path / "made")
    for part, other in (("text_model", "vision"), ("vision_model", "text")):
        graph = onnx.load(made / part / "model.onnx", load_external_data=False).graph
        assert not [tensor.name for tensor in graph.initializer if tensor.name.startswith(other)]


# config.json


def test_what_is_left_out_has_the_defaults_of_the_reference() -> None:
    read = direct._options(direct._architecture({"model_type": "clip"}).Options, {"model_type": "clip"})
    assert (read.text.hidden_size, read.vision.hidden_size, read.projection_dim) == (512, 768, 512)
    assert (read.text.eos_token_id, read.positions, read.vision.patch_size) == (49407, 77, 32)
    wanted = {**BASE_PATCH32["text_config"], **{f"v.{k}": v for k, v in BASE_PATCH32["vision_config"].items()}}
    found = {**vars(read.text), **{f"v.{key}": value for key, value in vars(read.vision).items()}}
    assert wanted.items() <= found.items()


def test_keys_that_do_not_change_the_graph_are_ignored_at_every_level(source: Path, tmp_path: Path) -> None:
    plain = digests(exported(source, tmp_path / "plain"))
    own = settings_of()
    odd = {key: {**own[key], "dropout": 0.0, "id2label": {"0": "LABEL_0"}} for key in ("text_config", "vision_config")}
    changed = with_config(source, **odd, text_config_dict=None, torch_dtype="float32")
    assert digests(exported(changed, tmp_path / "changed")) == plain


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"text_config": {"hidden_act": "silu"}}, "text_config.hidden_act: "),
        ({"vision_config": {"num_channels": 1}}, "vision_config.num_channels: "),
        ({"text_config": {"hidden_size": "512"}}, "text_config.hidden_size: "),
        ({"text_config": 7}, "text_config: "),
        ({"text_config": {"num_attention_heads": 5}}, "hidden_size 512 does not divide into 5 heads"),
        ({"vision_config": {**settings_of()["vision_config"], "patch_size": 33}}, "hold no patch of 33"),
        ({"projection_dim": 17}, "tensor 'text_projection.weight' has shape [16, 32], config.json asks for [17, 32]"),
    ],
)
def test_a_config_that_is_not_built_is_refused(
    source: Path, tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    assert told in refusal(with_config(source, **changed), tmp_path / "made")


def test_too_few_layers_are_told(source: Path, tmp_path: Path) -> None:
    config = settings_of(vision_config={"num_hidden_layers": 1})["vision_config"]
    assert "which the model of config.json does not use" in refusal(
        with_config(source, vision_config=config), tmp_path / "made"
    )


def test_longer_texts_than_the_model_has_positions_for_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"text\.max_tokens is 25, the model has 24 positions"):
        exported(source, tmp_path / "made", 25)


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        ({"vocab_size": 5}, 5),
        ({"text_config": {"vocab_size": 6}}, 6),
        ({"text_config": {"vocab_size": 6}, "text_config_dict": {"vocab_size": 7}}, 7),
        ({"text_config": {"vocab_size": 6}, "text_config_dict": None}, 6),
        ({"text_config": 3}, None),
        ({}, None),
        ([], None),
    ],
)
def test_the_vocabulary_is_found_in_the_text_part(tmp_path: Path, config: Any, rows: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert convert._vocabulary_size(tmp_path) == rows
