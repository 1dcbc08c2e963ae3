"""architectures/bert.py and graphs/blocks.py against BERT written once more, in numpy, from the paper.

Layout and names are those of the checkpoints (Hugging Face `BertModel`): a linear layer stores [outer, inner], a masked
position gets float32's lowest number added to its score, layer norm comes after each residual sum.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_models
import stand_ins
from modelkit import runtime
from modelkit.errors import StageError

erf = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))),
    "gelu_new": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


class Reference:
    """BERT in float64: hidden states and the pooled vector."""

    def __init__(self, config: dict[str, Any], seed: int) -> None:
        self.config = config
        self.weights = {k: v.astype(np.float64) for k, v in stand_ins.bert_weights(config, seed).items()}

    def hidden(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> np.ndarray:
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = x + w["embeddings.token_type_embeddings.weight"][types]
        x = self.norm(x, "embeddings.LayerNorm")
        for number in range(self.config["num_hidden_layers"]):
            x = self.layer(x, mask, f"encoder.layer.{number}")
        return x

    def layer(self, x: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
        mixed = self.dense(self.attend(x, mask, f"{name}.attention.self"), f"{name}.attention.output.dense")
        x = self.norm(x + mixed, f"{name}.attention.output.LayerNorm")
        inner = ACTIVATIONS[self.config["hidden_act"]](self.dense(x, f"{name}.intermediate.dense"))
        return self.norm(x + self.dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def attend(self, x: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
        batch, sequence, width = x.shape
        heads = self.config["num_attention_heads"]
        query, key, value = (
            self.dense(x, f"{name}.{part}").reshape(batch, sequence, heads, width // heads)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(width // heads)
        # In float32, as the reference framework adds it: a row without any token becomes uniform.
        scores = (scores.astype(np.float32) + ((1 - mask) * np.finfo(np.float32).min)[:, None, None, :]).astype(float)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares = shares / shares.sum(-1, keepdims=True)
        return np.einsum("bhqk,bkhd->bqhd", shares, value).reshape(batch, sequence, width)

    def dense(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def pooled(hidden: np.ndarray, mask: np.ndarray, pooling: str, normalize: bool) -> np.ndarray:
    if pooling == "cls":
        vector = hidden[:, 0]
    else:
        vector = (hidden * mask[..., None]).sum(1) / np.maximum(mask.sum(1, keepdims=True), 1e-9)
    return vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-12) if normalize else vector


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    return {
        **stand_ins.BERT,
        "num_attention_heads": heads,
        "hidden_size": heads * draw(st.integers(1, 8)),
        "num_hidden_layers": draw(st.integers(0, 3)),
        "intermediate_size": draw(st.integers(1, 40)),
        "max_position_embeddings": draw(st.integers(32, 40)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "vocab_size": draw(st.integers(1, 70)),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5])),
        "hidden_act": draw(st.sampled_from(sorted(ACTIVATIONS))),
    }


@st.composite
def batches(draw: st.DrawFn, config: dict[str, Any]) -> dict[str, np.ndarray]:
    batch, sequence = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = random.integers(0, 2, (batch, sequence)) if draw(st.booleans()) else np.ones((batch, sequence), np.int64)
    mask[:, 0] = 1
    return {
        "input_ids": random.integers(0, config["vocab_size"], (batch, sequence)),
        "attention_mask": mask,
        "token_type_ids": random.integers(0, config["type_vocab_size"], (batch, sequence)),
    }


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    config=configs(),
    seed=st.integers(0, 99),
    pooling=st.sampled_from(["mean", "cls"]),
    normalize=st.booleans(),
)
def test_the_graph_computes_what_the_paper_says(
    data: st.DataObject, config: dict[str, Any], seed: int, pooling: str, normalize: bool
) -> None:
    feed = data.draw(batches(config))
    reference = Reference(config, seed)
    expected = reference.hidden(feed["input_ids"], feed["attention_mask"], feed["token_type_ids"])
    with tempfile.TemporaryDirectory() as folder:
        source = stand_ins.bert(Path(folder) / "source", seed, **config)
        made = small_models.exported(source, Path(folder) / "made", pooling=pooling, normalize=normalize)
        hidden, vector = small_models.run(made / "model.onnx", feed)
    # One layer norm of a narrow vector may divide by almost nothing; then float32 has few digits left.
    np.testing.assert_allclose(hidden, expected, atol=1e-5 if config["hidden_size"] > 4 else 1e-2)
    np.testing.assert_allclose(vector, pooled(hidden, feed["attention_mask"], pooling, normalize), atol=1e-5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> runtime.Session:
    folder = tmp_path_factory.mktemp("tiny")
    made = small_models.exported(stand_ins.bert(folder / "source"), folder / "made")
    return runtime.Session(made / "model.onnx", 1)


def test_the_stand_in_agrees_with_the_paper_closely(tiny: runtime.Session) -> None:
    feed = small_models.feed()
    expected = Reference(stand_ins.BERT, 0).hidden(**dict(zip(("ids", "mask", "types"), feed.values(), strict=True)))
    np.testing.assert_allclose(tiny.run(feed)[0], expected, atol=1e-5)


def test_inputs_and_outputs_are_named_and_shaped_as_everywhere(tiny: runtime.Session) -> None:
    ids = ("tensor(int64)", ["batch", "sequence"])
    assert tiny.inputs == {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids}
    assert tiny.outputs == {
        "last_hidden_state": ("tensor(float)", ["batch", "sequence", 32]),
        "sentence_embedding": ("tensor(float)", ["batch", 32]),
    }


@settings(deadline=None)
@given(padding=st.integers(1, 20), pad=st.integers(0, 63), seed=st.integers(0, 99))
def test_padding_changes_nothing(tiny: runtime.Session, padding: int, pad: int, seed: int) -> None:
    feed = small_models.feed(seed=seed)
    fills = {"input_ids": pad, "attention_mask": 0, "token_type_ids": 1}
    padded = {n: np.pad(a, ((0, 0), (0, padding)), constant_values=fills[n]) for n, a in feed.items()}
    np.testing.assert_allclose(tiny.run(padded)[1], tiny.run(feed)[1], atol=1e-6)


def test_neighbours_in_the_batch_change_nothing(tiny: runtime.Session) -> None:
    feed = small_models.feed(batch=6)
    together = tiny.run(feed)[1]
    for row in range(6):
        alone = tiny.run({name: array[row : row + 1] for name, array in feed.items()})[1]
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_a_row_without_any_token_is_finite(tiny: runtime.Session) -> None:
    feed = small_models.feed()
    feed["attention_mask"][2] = 0
    for output in tiny.run(feed):
        assert np.isfinite(output).all()


def test_vectors_have_unit_length_when_they_are_normalised(tiny: runtime.Session) -> None:
    np.testing.assert_allclose(np.linalg.norm(tiny.run(small_models.feed())[1], axis=1), 1, atol=1e-6)


def test_a_checkpoint_of_a_task_head_is_read_too(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    bare = stand_ins.bert(tmp_path / "bare")
    headed = stand_ins.bert(tmp_path / "headed")
    tensors = {f"bert.{name}": array for name, array in stand_ins.bert_weights(stand_ins.BERT).items()}
    save_file({**tensors, "classifier.weight": np.ones((2, 32), np.float32)}, headed / "model.safetensors")
    one, other = (small_models.exported(source, tmp_path / f"{source.name} made") for source in (bare, headed))
    assert small_models.digests(one) == small_models.digests(other)


# Configurations that are not built


def refusal(folder: Path, config: dict[str, Any], **text: Any) -> str:
    source = stand_ins.bert(folder / "source")
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageError) as caught:
        small_models.exported(source, folder / "made", **text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("hidden_act", "silu"),
        ("hidden_size", "32"),
        ("hidden_size", 32.5),
        ("hidden_size", None),
        ("num_hidden_layers", True),
        ("layer_norm_eps", "small"),
    ],
)
def test_a_value_that_is_not_built_is_one_line_with_its_key(tmp_path: Path, key: str, value: Any) -> None:
    told = refusal(tmp_path, {**stand_ins.BERT, key: value})
    assert told.startswith(f"config.json: {key}: ")
    assert "\n" not in told


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    config = {key: value for key, value in stand_ins.BERT.items() if key != "hidden_size"}
    assert refusal(tmp_path, config).startswith("config.json: hidden_size: Field required")


def test_all_wrong_keys_are_told_at_once(tmp_path: Path) -> None:
    told = refusal(tmp_path, {**stand_ins.BERT, "hidden_act": "silu", "is_decoder": True})
    assert "hidden_act: " in told
    assert "is_decoder: " in told


@pytest.mark.parametrize("heads", [0, -4, 5, 64])
def test_heads_that_do_not_divide_the_width_are_told(tmp_path: Path, heads: int) -> None:
    told = refusal(tmp_path, {**stand_ins.BERT, "num_attention_heads": heads})
    assert f"hidden_size 32 does not divide into {heads} heads" in told


def test_a_config_of_another_size_is_told_with_the_tensor(tmp_path: Path) -> None:
    told = refusal(tmp_path, {**stand_ins.BERT, "vocab_size": 65})
    assert "'embeddings.word_embeddings.weight' has shape [64, 32], config.json asks for [65, 32]" in told


def test_more_layers_than_there_are_is_told_with_the_tensor(tmp_path: Path) -> None:
    told = refusal(tmp_path, {**stand_ins.BERT, "num_hidden_layers": 3})
    assert "tensor 'encoder.layer.2.attention.self.query.weight' is missing" in told


def test_longer_texts_than_the_model_has_positions_for_are_told(tmp_path: Path) -> None:
    assert "text.max_tokens is 65, the model has 64 positions" in refusal(tmp_path, stand_ins.BERT, max_tokens=65)


def test_keys_that_do_not_change_the_graph_are_ignored(tmp_path: Path) -> None:
    plain, chatty = stand_ins.bert(tmp_path / "plain"), stand_ins.bert(tmp_path / "chatty", transformers_version="5")
    one, other = (small_models.exported(source, tmp_path / f"{source.name} made") for source in (plain, chatty))
    assert small_models.digests(one) == small_models.digests(other)
