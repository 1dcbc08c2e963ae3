"""architectures/deberta_v2.py and graphs/disentangled.py against what transformers computed for the same weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import small_models
from modelkit import kinds, runtime
from modelkit.errors import StageError
from modelkit.exporters import direct
from modelkit.graphs.disentangled import Span
from modelkit.vocabulary import Choice
from stand_ins.deberta_v2 import DEBERTA_V2, deberta_v2

RECORDED = json.loads((Path(__file__).parents[1] / "references" / "deberta_v2.json").read_text("utf-8"))
TASKS = ("feature-extraction", "zero-shot-classification")
every_model = pytest.mark.parametrize("name", RECORDED["models"])


def exported(source: Path, into: Path, task: str = "zero-shot-classification") -> Path:
    into.mkdir(parents=True)
    manifest = small_models.manifest_of()
    if task != "feature-extraction":
        there = kinds.load("tasks", task)
        manifest = replace(manifest, task=Choice(task, there.Options(there.Text(max_tokens=32))))
    direct.export(manifest, source, into, direct.Options())
    return into


def feed(batch: int = 4, sequence: int = 9, seed: int = 3) -> dict[str, np.ndarray]:
    made = small_models.feed(batch, sequence, DEBERTA_V2["vocab_size"], seed)
    return {name: made[name] for name in ("input_ids", "attention_mask")}


# What transformers computes


@every_model
def test_hidden_states_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    case = RECORDED["models"][name]
    source = deberta_v2(tmp_path / "source", case["seed"], **case["config"])
    made = exported(source, tmp_path / "made", "feature-extraction")
    hidden, _ = small_models.run(made / "model.onnx", {k: np.array(v) for k, v in case["inputs"].items()})
    step = 50 if hidden.shape[1] > 64 else 5
    np.testing.assert_allclose(hidden[:, ::step, :3], case["hidden"], atol=5e-5)


@every_model
def test_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    case = RECORDED["models"][name]
    made = exported(deberta_v2(tmp_path / "source", case["seed"], **case["config"]), tmp_path / "made")
    (logits,) = small_models.run(made / "model.onnx", {k: np.array(v) for k, v in case["inputs"].items()})
    np.testing.assert_allclose(logits, case["logits"], atol=5e-5)


def test_without_the_terms_of_distance_the_answers_are_others(tmp_path: Path) -> None:
    # The recording would notice: the terms are large enough to matter.
    case = RECORDED["models"]["as published"]
    source = deberta_v2(tmp_path / "source", case["seed"], pos_att_type=["c2p"])
    (logits,) = small_models.run(
        exported(source, tmp_path / "made") / "model.onnx", {k: np.array(v) for k, v in case["inputs"].items()}
    )
    assert np.abs(logits - case["logits"]).max() > 1e-3


@pytest.mark.parametrize("span", RECORDED["buckets"], ids=lambda span: f"{span['furthest']}-{span['buckets']}")
def test_every_distance_has_the_bucket_that_transformers_gives_it(span: dict[str, Any]) -> None:
    ours = Span(span["furthest"], span["buckets"])
    for distance, place in enumerate(span["places"]):
        assert ours.row(distance) == min(span["buckets"] + place, 2 * span["buckets"] - 1)
        assert ours.row(-distance) == span["buckets"] - place


@given(furthest=st.integers(8, 2000), share=st.floats(0, 1))
def test_rows_never_fall_as_distances_grow_and_never_leave_the_table(furthest: int, share: float) -> None:
    span = Span(furthest, 2 + int(share * (2 * furthest - 5)))
    rows = [span.row(distance) for distance in range(-furthest - 3, furthest + 4)]
    assert rows == sorted(rows)
    assert rows[0] >= 0
    assert rows[-1] <= 2 * span.rows - 1


def test_distances_beyond_the_furthest_share_its_last_row() -> None:
    span = Span(64, 16)
    assert {span.row(distance) for distance in (64, 65, 1000)} == {31}
    assert {span.row(-distance) for distance in (64, 65, 1000)} == {0}


# What the graph promises


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> runtime.Session:
    folder = tmp_path_factory.mktemp("deberta")
    return runtime.Session(exported(deberta_v2(folder / "source"), folder / "made") / "model.onnx", 1)


@given(padding=st.integers(1, 90), pad=st.integers(0, 95), seed=st.integers(0, 99))
def test_padding_changes_nothing(tiny: runtime.Session, padding: int, pad: int, seed: int) -> None:
    plain = feed(seed=seed)
    fills = {"input_ids": pad, "attention_mask": 0}
    padded = {n: np.pad(a, ((0, 0), (0, padding)), constant_values=fills[n]) for n, a in plain.items()}
    np.testing.assert_allclose(tiny.run(padded)[0], tiny.run(plain)[0], atol=1e-5)


def test_neighbours_in_the_batch_change_nothing(tiny: runtime.Session) -> None:
    together = tiny.run(feed(batch=6))[0]
    for row in range(6):
        alone = {name: array[row : row + 1] for name, array in feed(batch=6).items()}
        np.testing.assert_allclose(tiny.run(alone)[0][0], together[row], atol=1e-5)


@pytest.mark.parametrize("sequence", [1, 2, 64, 65, 200])
def test_any_length_runs_and_is_finite(tiny: runtime.Session, sequence: int) -> None:
    (logits,) = tiny.run(feed(2, sequence))
    assert np.isfinite(logits).all()
    assert logits.shape == (2, 3)


def test_without_the_runtimes_optimizations_the_answers_are_the_same(tmp_path: Path) -> None:
    made = exported(deberta_v2(tmp_path / "source"), tmp_path / "made") / "model.onnx"
    np.testing.assert_allclose(
        small_models.plain_run(made, feed())[0], small_models.run(made, feed())[0], atol=1e-5
    )  # fmt: skip


def test_inputs_and_outputs_are_named_and_shaped_as_everywhere(tiny: runtime.Session) -> None:
    ids = ("tensor(int64)", ["batch", "sequence"])
    assert tiny.inputs == {"input_ids": ids, "attention_mask": ids}
    assert tiny.outputs == {"logits": ("tensor(float)", ["batch", 3])}


@pytest.mark.parametrize("task", TASKS)
def test_the_same_weights_give_the_same_bytes(tmp_path: Path, task: str) -> None:
    source = deberta_v2(tmp_path / "source")
    one, other = (exported(source, tmp_path / name, task) for name in ("one", "other"))
    assert small_models.digests(one) == small_models.digests(other)


def test_weights_in_sixteen_bits_are_read(tmp_path: Path) -> None:
    source = deberta_v2(tmp_path / "source", torch_dtype="float16")
    assert {str(array.dtype) for array in load_file(source / "model.safetensors").values()} == {"float16"}
    made = exported(source, tmp_path / "made")
    assert np.isfinite(small_models.run(made / "model.onnx", feed())[0]).all()


def test_every_tensor_is_stored_once(tmp_path: Path) -> None:
    source = deberta_v2(tmp_path / "source")
    made = exported(source, tmp_path / "made", "zero-shot-classification")
    stored = sum(array.nbytes for array in load_file(source / "model.safetensors").values())
    assert sum(path.stat().st_size for path in made.glob("model.onnx*")) < 1.25 * stored + 40_000


@pytest.mark.parametrize("kind", ["w8a8-per-token", "w4a8-per-token"])
def test_per_token_schemes_reach_every_matrix_of_the_layers(tmp_path: Path, kind: str) -> None:
    import onnx

    # Schemes leave tables of a few kilobytes alone.
    made = exported(deberta_v2(tmp_path / "source", vocab_size=512), tmp_path / "made")
    smaller = small_models.quantized(made, tmp_path / "smaller", kind)
    model = onnx.load(smaller / "model.onnx")
    floats = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    assert floats == ["encoder.rel_embeddings.weight"]


@pytest.mark.parametrize("kind", kinds.names("schemes"))
def test_every_scheme_takes_the_graph_and_answers_alike(tmp_path: Path, kind: str) -> None:
    made = exported(deberta_v2(tmp_path / "source"), tmp_path / "made")
    smaller = small_models.quantized(made, tmp_path / "smaller", kind)
    whole, less = (small_models.run(folder / "model.onnx", feed())[0] for folder in (made, smaller))
    assert small_models.cosines(less, whole).min() > 0.7


def test_what_pre_training_left_behind_is_no_mistake(tmp_path: Path) -> None:
    source = deberta_v2(tmp_path / "source")
    left = {
        "deberta.embeddings.position_ids": np.arange(64)[None],
        "deberta.embeddings.position_embeddings.weight": np.ones((64, 32), np.float32),
        "lm_predictions.lm_head.bias": np.ones(96, np.float32),
        "mask_predictions.dense.bias": np.ones(32, np.float32),
    }
    save_file({**load_file(source / "model.safetensors"), **left}, source / "model.safetensors")
    exported(source, tmp_path / "made")


# Configurations that are not built


def refusal(folder: Path, **config: Any) -> str:
    source = deberta_v2(folder / "source")
    (source / "config.json").write_text(json.dumps({**DEBERTA_V2, **config}))
    with pytest.raises(StageError) as caught:
        exported(source, folder / "made")
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size 3 (a convolution beside the first layer) is not built"),
        ({"pos_att_type": ["c2p", "p2p"]}, "pos_att_type 'p2p' is not built"),
        ({"pos_att_type": "p2p|c2p"}, "pos_att_type 'p2p' is not built"),
        ({"attention_head_size": 16}, "attention_head_size 16 is not built"),
        ({"pooler_hidden_size": 16}, "pooler_hidden_size 16 is not built"),
        ({"position_buckets": 1}, "position_buckets 1 for 64 positions is not built"),
        ({"position_buckets": 126}, "position_buckets 126 for 64 positions is not built"),
        ({"num_attention_heads": 5}, "hidden_size 32 does not divide into 5 heads"),
        ({"hidden_act": "silu"}, "hidden_act: "),
        ({"pooler_hidden_act": "tanh"}, "pooler_hidden_act: "),
        ({"num_hidden_layers": 3}, "tensor 'encoder.layer.2.attention.self.query_proj.weight' is missing"),
        ({"num_hidden_layers": 1}, "which the model of config.json does not use"),
        ({"id2label": {"0": "entailment", "1": "not_entailment"}}, "has shape [3, 32], config.json asks for [2, 32]"),
    ],
)
def test_a_configuration_that_is_not_built_is_told_in_one_line(
    tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    found = refusal(tmp_path, **config)
    assert told in found
    assert "\n" not in found


def test_the_published_head_sizes_are_accepted(tmp_path: Path) -> None:
    exported(deberta_v2(tmp_path / "source", attention_head_size=8, pooler_hidden_size=32), tmp_path / "made")


def test_the_number_of_labels_is_two_when_config_json_is_silent() -> None:
    options = kinds.load("architectures", "deberta-v2").Options
    silent = options(96, 32, 2, 4, 64)
    assert silent.labels == 2
    assert replace(silent, num_labels=5).labels == 5
    assert replace(silent, id2label={"0": "a"}).labels == 1


@pytest.mark.parametrize("written", [["p2c", "c2p"], "p2c|c2p", "C2P | P2C"])
def test_terms_are_read_from_a_list_and_from_a_text(written: Any) -> None:
    options = kinds.load("architectures", "deberta-v2").Options(96, 32, 2, 4, 64, pos_att_type=written)
    assert options.terms == ("c2p", "p2c")
