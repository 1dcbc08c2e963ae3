"""architectures/new.py against the same encoder written once more, in numpy.

transformers has no implementation of `model_type: new`; what is below was put together from public descriptions, and
each of them attests a part:

- names of tensors, packed projections, `up` before `gate`, the activation on `gate`, no bias in `up_gate_proj`, sums
  before norms: text-embeddings-inference, `backends/candle/src/models/gte.rs`, and vLLM, `models/bert_with_rope.py`
  (GteNewModel);
- the prefix `new.` and a `classifier` to be left alone: vLLM, the same file;
- fixed and mixed NTK scaling: vLLM, `layers/rotary_embedding/ntk_scaling_rope.py`, after https://kexue.fm/archives/9706;
  the fixed one also in gte.rs. Neither waits for a text longer than the model was trained on, nor does the original,
  which fills its tables once, for `factor` times as many positions;
- pairs from both halves of a head (`is_neox_style`): vLLM's `get_rope` default, and gte.rs' `apply_rotary`;
- `gelu` is the exact one: what transformers' activations call so.
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
from safetensors.numpy import save_file

import small_models
from modelkit import kinds, runtime
from modelkit.errors import StageError
from modelkit.graphs import files
from modelkit.graphs.rotary import plain_frequencies, slowed_frequencies
from stand_ins.new import NEW, new, new_weights
from stand_ins.xlm_roberta import padded_feed

erf = np.vectorize(math.erf)
PLAIN, FIXED, MIXED = (
    None,
    {"type": "ntk", "factor": 8.0},
    {"type": "ntk", "factor": 4, "mixed_b": 0.625},
)  # fmt: skip


class Reference:
    """The encoder in float64, one text at a time and without padding."""

    def __init__(self, config: dict[str, Any], seed: int) -> None:
        self.config = config
        self.weights = {name: array.astype(np.float64) for name, array in new_weights(config, seed).items()}
        self.heads = config["num_attention_heads"]
        self.head = config["hidden_size"] // self.heads

    def hidden(self, ids: np.ndarray, types: np.ndarray) -> np.ndarray:
        """int[sequence] twice -> float64[sequence, width]."""
        x = self.weights["embeddings.word_embeddings.weight"][ids]
        if self.config["type_vocab_size"]:
            x = x + self.weights["embeddings.token_type_embeddings.weight"][types]
        x = self.norm(x, "embeddings.LayerNorm")
        for number in range(self.config["num_hidden_layers"]):
            name = f"encoder.layer.{number}"
            x = self.norm(x + self.attend(x, f"{name}.attention"), f"{name}.attn_ln")
            x = self.norm(x + self.gated(x, f"{name}.mlp"), f"{name}.mlp_ln")
        return x

    def attend(self, x: np.ndarray, name: str) -> np.ndarray:
        query, key, value = np.split(self.dense(x, f"{name}.qkv_proj"), 3, axis=-1)
        mixed = []
        for n in range(self.heads):
            q, k, v = (part[:, n * self.head : (n + 1) * self.head] for part in (query, key, value))
            scores = self.rotate(q) @ self.rotate(k).T / math.sqrt(self.head)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(shares / shares.sum(-1, keepdims=True) @ v)
        return self.dense(np.concatenate(mixed, -1), f"{name}.o_proj")

    def rotate(self, x: np.ndarray) -> np.ndarray:
        """Each pair as a complex number, times e^(i * position * frequency)."""
        half = self.head // 2
        turns = np.arange(len(x))[:, None] * self.turns()[None, :]
        pairs = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * turns)
        return np.concatenate([pairs.real, pairs.imag], -1)

    def turns(self) -> np.ndarray:
        scaling, theta, size = self.config["rope_scaling"], float(self.config["rope_theta"]), self.head
        if scaling and scaling.get("mixed_b") is None:
            factor = scaling["factor"]
            return 1 / (theta * factor) ** (np.arange(0, size, 2) / size) / factor ** (2 / size)
        plain = 1 / theta ** (np.arange(0, size, 2) / size)
        if not scaling:
            return plain
        a = math.log(scaling["factor"]) / (size / 2) ** scaling["mixed_b"]
        return plain / np.exp(a * np.arange(1, size // 2 + 1) ** scaling["mixed_b"])

    def gated(self, x: np.ndarray, name: str) -> np.ndarray:
        up, gate = np.split(x @ self.weights[f"{name}.up_gate_proj.weight"].T, 2, axis=-1)
        active = gate * 0.5 * (1 + erf(gate / math.sqrt(2)))
        return self.dense(active * up, f"{name}.down_proj")

    def dense(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    return {
        **NEW,
        "num_attention_heads": heads,
        "hidden_size": heads * 2 * draw(st.integers(2, 6)),
        "num_hidden_layers": draw(st.integers(0, 3)),
        "intermediate_size": draw(st.integers(1, 40)),
        "type_vocab_size": draw(st.integers(0, 3)),
        "vocab_size": draw(st.integers(3, 70)),
        "rope_theta": draw(st.sampled_from([10000, 20000.0, 500000])),
        "rope_scaling": draw(st.sampled_from([PLAIN, FIXED, MIXED])),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5])),
    }


@settings(max_examples=40, deadline=None)
@given(config=configs(), seed=st.integers(0, 99), sequence=st.integers(1, 40))
def test_the_graph_computes_what_the_sources_say(config: dict[str, Any], seed: int, sequence: int) -> None:
    feed = padded_feed(config, batch=3, sequence=sequence, seed=seed)
    types = np.random.default_rng(seed).integers(0, max(1, config["type_vocab_size"]), feed["input_ids"].shape)
    if config["type_vocab_size"] > 1:
        feed["token_type_ids"] = types
    with tempfile.TemporaryDirectory() as folder:
        made = small_models.exported(new(Path(folder) / "source", seed, **config), Path(folder) / "made")
        hidden = small_models.run(made / "model.onnx", feed)[0]
    reference = Reference(config, seed)
    for row, length in enumerate(feed["attention_mask"].sum(1)):
        expected = reference.hidden(feed["input_ids"][row, :length], types[row, :length])
        # One layer norm of a narrow vector may divide by almost nothing; then float32 has few digits left.
        np.testing.assert_allclose(hidden[row, :length], expected, atol=1e-5 if config["hidden_size"] > 8 else 1e-2)


def test_far_positions_keep_their_precision(tmp_path: Path) -> None:
    config = {**NEW, "max_position_embeddings": 2048, "num_hidden_layers": 1, "rope_scaling": None}
    made = small_models.exported(new(tmp_path / "source", **config), tmp_path / "made")
    ids = np.random.default_rng(0).integers(2, 64, (1, 1500))
    hidden = small_models.run(made / "model.onnx", {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    expected = Reference(config, 0).hidden(ids[0], np.zeros(1500, int))
    np.testing.assert_allclose(hidden[0], expected, atol=5e-5)


@pytest.mark.parametrize("scheme", kinds.names("schemes"))
def test_no_scheme_rounds_the_frequencies(tmp_path: Path, scheme: str) -> None:
    # As many as gte-multilingual-base has: heads of 64 features.
    source = new(tmp_path / "source", hidden_size=128, num_attention_heads=2, rope_scaling=None)
    smaller = small_models.quantized(small_models.exported(source, tmp_path / "made"), tmp_path / "smaller", scheme)
    kept = files.load(smaller).graph.initializers["rotary/frequencies"].const_value
    assert kept is not None
    np.testing.assert_array_equal(kept.numpy(), plain_frequencies(20000.0, 64))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> runtime.Session:
    folder = tmp_path_factory.mktemp("tiny")
    return runtime.Session(small_models.exported(new(folder / "source"), folder / "made") / "model.onnx", 1)


@pytest.mark.parametrize(("types", "more"), [(0, []), (1, []), (2, ["token_type_ids"])])
def test_token_types_are_an_input_where_there_is_a_choice(tmp_path: Path, types: int, more: list[str]) -> None:
    made = small_models.exported(new(tmp_path / "source", type_vocab_size=types), tmp_path / "made")
    assert list(runtime.Session(made / "model.onnx", 1).inputs) == ["input_ids", "attention_mask", *more]


@settings(deadline=None, max_examples=30)
@given(padding=st.integers(1, 20), pad=st.integers(0, 63), seed=st.integers(0, 99))
def test_padding_changes_nothing(tiny: runtime.Session, padding: int, pad: int, seed: int) -> None:
    feed = padded_feed(NEW, seed=seed)
    fills = {"input_ids": pad, "attention_mask": 0}
    padded = {n: np.pad(a, ((0, 0), (0, padding)), constant_values=fills[n]) for n, a in feed.items()}
    np.testing.assert_allclose(tiny.run(padded)[1], tiny.run(feed)[1], atol=1e-5)


def test_the_order_of_words_matters(tiny: runtime.Session) -> None:
    ids = np.array([[5, 6, 7, 8], [8, 7, 6, 5]])
    one, other = tiny.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})[1]
    assert not np.allclose(one, other, atol=1e-3)


def test_a_bare_checkpoint_is_read_too(tmp_path: Path) -> None:
    headed, bare = (new(tmp_path / name) for name in ("headed", "bare"))
    save_file(new_weights(NEW), bare / "model.safetensors")
    one, other = (small_models.exported(source, tmp_path / f"{source.name} made") for source in (headed, bare))
    assert small_models.digests(one) == small_models.digests(other)


def test_without_scaling_the_frequencies_are_those_of_the_paper() -> None:
    np.testing.assert_allclose(plain_frequencies(10000.0, 8), [1, 0.1, 0.01, 0.001], rtol=1e-6)


@settings(deadline=None)
@given(head=st.integers(1, 64).map(lambda half: 2 * half), factor=st.floats(1, 64), seed=st.integers(0, 9))
def test_fixed_scaling_slows_the_last_pair_by_the_factor(head: int, factor: float, seed: int) -> None:
    from modelkit.architectures.new import RopeScaling

    theta = 10000.0 + seed
    slowed, plain = slowed_frequencies(theta, head, RopeScaling("ntk", factor)), plain_frequencies(theta, head)
    # theta^(-(head - 2) / head) loses factor^(-(head - 2) / head), and the division the other 2 / head.
    np.testing.assert_allclose(slowed[-1] * factor, plain[-1], rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "absolute"),
        ("layer_norm_type", "rms_norm"),
        ("pack_qkv", False),
        ("logn_attention_scale", True),
        ("hidden_act", "silu"),
        ("rope_scaling", {"type": "yarn", "factor": 2.0}),
        ("rope_scaling", {"type": "ntk"}),
    ],
)
def test_what_is_not_built_is_told_with_its_key(tmp_path: Path, key: str, value: Any) -> None:
    source = new(tmp_path / "source")
    (source / "config.json").write_text(json.dumps({**NEW, key: value}))
    with pytest.raises(StageError) as caught:
        small_models.exported(source, tmp_path / "made")
    assert str(caught.value).startswith(f"config.json: {key}")


def test_heads_that_cannot_turn_in_pairs_are_told(tmp_path: Path) -> None:
    source = new(tmp_path / "source", hidden_size=36, num_attention_heads=4)
    with pytest.raises(StageError, match="heads of 9 features have no pairs"):
        small_models.exported(source, tmp_path / "made")


@pytest.mark.parametrize("scheme", ["w8a8-per-token", "w4a8-per-token", "int8-dynamic", "fp16"])
def test_a_smaller_one_stays_near(tmp_path: Path, scheme: str) -> None:
    made = small_models.exported(new(tmp_path / "source", vocab_size=600), tmp_path / "made")
    smaller = small_models.quantized(made, tmp_path / "smaller", scheme)
    feed = padded_feed({**NEW, "vocab_size": 600}, batch=12)
    ours, theirs = (small_models.run(folder / "model.onnx", feed)[1] for folder in (smaller, made))
    assert small_models.cosines(ours, theirs).min() > (0.9 if scheme.startswith("w4") else 0.98)
