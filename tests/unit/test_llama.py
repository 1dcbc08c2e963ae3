"""architectures/llama.py, architectures/qwen2.py and graphs/decoders.py against what transformers computed.

The recordings in tests/references are made by record_llama.py there; everything else compares the graph with itself.
"""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import small_models
from modelkit import runtime
from modelkit.errors import StageError
from modelkit.exporters import direct
from modelkit.graphs import files
from modelkit.manifest_keys import expand, parse_tensor
from modelkit.vocabulary import Choice
from stand_ins import llama as stand_ins

TESTS = Path(__file__).parents[1]
KINDS: dict[str, Callable[..., Path]] = {"llama": stand_ins.llama, "qwen2": stand_ins.qwen2}
RECORDED = {kind: json.loads((TESTS / "references" / f"{kind}.json").read_text("utf-8"))["cases"] for kind in KINDS}
every_kind = pytest.mark.parametrize("kind", KINDS)


def exported(source: Path, into: Path) -> Path:
    into.mkdir(parents=True)
    manifest = replace(small_models.manifest_of(), task=Choice("text-generation", None))
    direct.export(manifest, source, into, direct.Options())
    return into


def refusal(folder: Path, kind: str = "llama", **config: Any) -> str:
    """What is said about a config.json that belongs to other weights."""
    source = KINDS[kind](folder / "source")
    settings = json.loads((source / "config.json").read_text("utf-8"))
    (source / "config.json").write_text(json.dumps({**settings, **config}))
    with pytest.raises(StageError) as caught:
        exported(source, folder / "made")
    return f"{caught.value}"


class Model:
    """A graph that is run with a cache."""

    def __init__(self, path: Path) -> None:
        self.session = runtime.Session(path, 1)
        self.caches = {name: shape for name, (_, shape) in self.session.inputs.items() if name.startswith("past_")}

    def empty(self, batch: int) -> dict[str, np.ndarray]:
        return {name: np.zeros((batch, shape[1], 0, shape[3]), np.float32) for name, shape in self.caches.items()}

    def step(
        self, ids: np.ndarray, mask: np.ndarray, past: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits of `ids`, which end where `mask` ends, and the longer cache."""
        positions = np.maximum(mask.cumsum(1) - 1, 0)[:, mask.shape[1] - ids.shape[1] :]
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        logits, *present = self.session.run({**feed, **(past or self.empty(len(ids)))})
        return logits, dict(zip(self.caches, present, strict=True))

    def greedy(self, ids: np.ndarray, mask: np.ndarray, count: int, *, cached: bool = True) -> np.ndarray:
        """The `count` likeliest next tokens of each row, one after the other: int64[batch, count]."""
        past, fresh = self.empty(len(ids)), ids
        for _ in range(count):
            logits, present = self.step(fresh, mask, past)
            best = logits[:, -1].argmax(-1)[:, None]
            ids, mask = np.hstack([ids, best]), np.hstack([mask, np.ones_like(best)])
            fresh, past = (best, present) if cached else (ids, past)
        return ids[:, -count:]


def batch(seed: int, rows: int = 3, length: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A left-padded batch: token ids and mask."""
    random = np.random.default_rng(seed)
    mask = (np.arange(length) >= random.integers(0, length, (rows, 1))).astype(np.int64)
    return random.integers(3, 288, (rows, length)) * mask, mask


@pytest.fixture(scope="module", params=KINDS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp(request.param)
    return Model(exported(KINDS[request.param](folder / "source"), folder / "made") / "model.onnx")


# Against transformers


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, cases in RECORDED.items() for name in cases])
def test_the_graph_computes_what_transformers_computes(kind: str, name: str, tmp_path: Path) -> None:
    case = RECORDED[kind][name]
    source = KINDS[kind](tmp_path / "source", case["seed"], **case["config"])
    weights = sha256((source / "model.safetensors").read_bytes()).hexdigest()
    assert weights == case["weights"], "the stand-in is not the one that was recorded"
    model = Model(exported(source, tmp_path / "made") / "model.onnx")
    ids, mask = np.array(case["input_ids"]), np.array(case["attention_mask"])
    logits, _ = model.step(ids, mask)
    starts, columns = mask.argmax(1), len(case["last"][0])
    np.testing.assert_allclose(logits[range(len(ids)), starts, :columns], case["first"], atol=5e-5)
    np.testing.assert_allclose(logits[:, -1, :columns], case["last"], atol=5e-5)
    np.testing.assert_allclose(np.linalg.norm(logits[:, -1], axis=-1), case["lengths"], rtol=1e-6)
    np.testing.assert_array_equal(model.greedy(ids, mask, len(case["greedy"][0])), case["greedy"])


def test_the_recorded_texts_are_worth_comparing() -> None:
    for cases in RECORDED.values():
        for case in cases.values():
            assert all(len(set(row)) > 8 for row in case["greedy"])


# With the cache and without


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 4), length=st.integers(1, 16))
def test_greedy_with_the_cache_is_greedy_without(tiny: Model, seed: int, rows: int, length: int) -> None:
    ids, mask = batch(seed, rows, length)
    with_cache, without = (tiny.greedy(ids, mask, 12, cached=cached) for cached in (True, False))
    np.testing.assert_array_equal(with_cache, without)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), cut=st.integers(1, 11))
def test_a_prompt_in_two_pieces_is_the_prompt_in_one(tiny: Model, seed: int, cut: int) -> None:
    ids, mask = batch(seed)
    whole, cache = tiny.step(ids, mask)
    _, past = tiny.step(ids[:, :cut], mask[:, :cut])
    rest, present = tiny.step(ids[:, cut:], mask, past)
    kept = mask[:, cut:].astype(bool)
    np.testing.assert_allclose(rest[kept], whole[:, cut:][kept], atol=5e-5)
    for name, values in cache.items():
        unpadded = np.broadcast_to(mask[:, None, :, None].astype(bool), values.shape)
        np.testing.assert_allclose(present[name][unpadded], values[unpadded], atol=5e-5)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_left_padded_batch_gives_what_each_prompt_gives_alone(tiny: Model, seed: int) -> None:
    ids, mask = batch(seed, rows=4)
    together = tiny.greedy(ids, mask, 10)
    for row, start in enumerate(mask.argmax(1)):
        alone = tiny.greedy(ids[row : row + 1, start:], mask[row : row + 1, start:], 10)
        np.testing.assert_array_equal(alone[0], together[row])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), token=st.integers(3, 287))
def test_a_later_token_changes_nothing_before_it(tiny: Model, seed: int, token: int) -> None:
    ids = np.random.default_rng(seed).integers(3, 288, (2, 9))
    changed = ids.copy()
    changed[:, 6] = token
    one, other = (tiny.step(x, np.ones_like(x))[0] for x in (ids, changed))
    np.testing.assert_allclose(one[:, :6], other[:, :6], atol=1e-6)


def test_what_the_padding_holds_changes_nothing(tiny: Model) -> None:
    ids, mask = batch(5)
    one, other = (tiny.step(x, mask)[0][mask.astype(bool)] for x in (ids, ids + (1 - mask) * 77))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_row_without_any_token_is_finite(tiny: Model) -> None:
    ids, mask = batch(5)
    logits, present = tiny.step(ids * 0, mask * 0)
    assert np.isfinite(logits).all()
    assert all(np.isfinite(values).all() for values in present.values())


# The graph


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [
        ("smollm2-135m-instruct", "llama", {**stand_ins.SMOLLM2_135M, "head_dim": 64}),
        ("llama-3.2-1b-instruct", "llama", stand_ins.LLAMA_32_1B),
        ("qwen2.5-1.5b-instruct", "qwen2", stand_ins.QWEN25_15B),
    ],
)
def test_the_graph_has_the_signature_of_the_real_models_manifest(
    name: str, kind: str, config: dict[str, Any], tmp_path: Path
) -> None:
    declared = yaml.safe_load((TESTS.parent / "manifests" / f"{name}.yaml").read_text("utf-8"))["signature"]
    # Neither of the two shows in the signature.
    source = KINDS[kind](tmp_path / "source", **{**config, "hidden_size": 2, "intermediate_size": 2})
    model = onnx.load(exported(source, tmp_path / "made") / "model.onnx", load_external_data=False)
    for what, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        told = [(one, *parse_tensor(text)) for key, text in declared[what].items() for one in expand(key)]
        assert [signed(value) for value in values] == told


def signed(value: onnx.ValueInfoProto) -> tuple[str, str, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return value.name, dtype, tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)


@every_kind
def test_onnxruntime_fuses_every_norm_and_every_gate(kind: str, tmp_path: Path) -> None:
    import onnxruntime

    made = exported(KINDS[kind](tmp_path / "source"), tmp_path / "made")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(made / "model.onnx", options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    count = Counter(node.op_type for node in optimised.graph.node)
    assert (count["SimplifiedLayerNormalization"], count["QuickGelu"], count["ReduceMean"]) == (2 * 2 + 1, 2, 0)


@every_kind
def test_keys_and_values_are_not_copied_for_the_query_heads_of_a_group(kind: str, tmp_path: Path) -> None:
    made = exported(KINDS[kind](tmp_path / "source"), tmp_path / "made")
    graph = files.load(made).graph
    assert not {node.op_type for node in graph} & {"Expand", "Tile"}
    readers = [node.op_type for node in graph if "present.0.value" in {value.name for value in node.inputs if value}]
    assert readers == ["MatMul"]


@every_kind
def test_only_standard_operators_are_used(kind: str, tmp_path: Path) -> None:
    model = onnx.load(exported(KINDS[kind](tmp_path / "source"), tmp_path / "made") / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]


@every_kind
def test_a_tied_table_is_stored_once(kind: str, tmp_path: Path) -> None:
    rows = files.account(exported(KINDS[kind](tmp_path / "source"), tmp_path / "made") / "model.onnx")
    assert [name for name, _, shape, _ in rows if 288 in shape] == ["embed_tokens.weight"]


@every_kind
def test_twice_is_the_same_bytes(kind: str, tmp_path: Path) -> None:
    source = KINDS[kind](tmp_path / "source")
    one, other = (exported(source, tmp_path / name) for name in ("one", "other"))
    assert small_models.digests(one) == small_models.digests(other)


# Checkpoints


def test_a_tied_model_that_stores_its_head_as_well_is_the_same_model(tmp_path: Path) -> None:
    plain, chatty = stand_ins.llama(tmp_path / "plain"), stand_ins.llama(tmp_path / "chatty")
    tensors = load_file(chatty / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    save_file(tensors, chatty / "model.safetensors")
    one, other = (exported(source, tmp_path / f"{source.name} made") for source in (plain, chatty))
    assert small_models.digests(one) == small_models.digests(other)


def test_a_model_without_a_tied_head_needs_its_own(tmp_path: Path) -> None:
    assert "tensor 'lm_head.weight' is missing" in refusal(tmp_path, tie_word_embeddings=False)


def test_shards_give_the_bytes_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stand_ins.llama(tmp_path / "one")
    monkeypatch.setattr(stand_ins, "SHARD", 60_000)
    sharded = stand_ins.llama(tmp_path / "sharded")
    assert len(list(sharded.glob("model-*-of-*.safetensors"))) > 1
    made, other = (exported(source, tmp_path / f"{source.name} made") for source in (one, sharded))
    assert small_models.digests(made) == small_models.digests(other)


def test_biases_that_config_json_does_not_know_are_told(tmp_path: Path) -> None:
    source = stand_ins.llama(tmp_path / "source", attention_bias=True)
    config = json.loads((source / "config.json").read_text("utf-8"))
    (source / "config.json").write_text(json.dumps({**config, "attention_bias": False}))
    with pytest.raises(StageError, match=r"the weights hold 'model\.layers\.0\.self_attn\..*bias' and 7 more"):
        exported(source, tmp_path / "made")


@pytest.mark.parametrize("scaling", [None, stand_ins.LLAMA_32_1B["rope_scaling"]])
def test_the_keys_of_transformers_5_are_read_too(tmp_path: Path, scaling: dict[str, Any] | None) -> None:
    old = stand_ins.llama(tmp_path / "old", rope_theta=5000.0, rope_scaling=scaling)
    new = stand_ins.llama(tmp_path / "new")
    config = {key: value for key, value in stand_ins.LLAMA.items() if not key.startswith("rope_")}
    config["rope_parameters"] = {"rope_type": "default", **(scaling or {}), "rope_theta": 5000.0}
    (new / "config.json").write_text(json.dumps(config))
    one, other = (exported(source, tmp_path / f"{source.name} made") for source in (old, new))
    assert small_models.digests(one) == small_models.digests(other)


# Files


@every_kind
def test_a_model_too_large_for_one_file_gets_two_and_computes_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exported(KINDS[kind](tmp_path / "source"), tmp_path / "made")
    single = small_models.finished(made, tmp_path / "single")
    monkeypatch.setattr(files, "LARGEST_FILE", 100_000)
    double = small_models.finished(made, tmp_path / "double")
    assert [path.name for path in sorted(single.parent.iterdir())] == ["model.onnx"]
    assert [path.name for path in sorted(double.parent.iterdir())] == ["model.onnx", "model.onnx.data"]
    ids, mask = batch(1)
    np.testing.assert_array_equal(Model(single).step(ids, mask)[0], Model(double).step(ids, mask)[0])


@every_kind
def test_memory_holds_a_few_tensors_and_not_the_model(kind: str, tmp_path: Path) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 12}
    source = KINDS[kind](tmp_path / "source", **wide)
    exported(source, tmp_path / "warm")  # what modules allocate once is not the export's
    tracemalloc.start()
    try:
        made = exported(source, tmp_path / "made")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    largest = 1024 * 256 * 4
    assert (made / files.DATA).stat().st_size > 40 * largest
    assert peak < 6 * largest


# Configurations that are not built


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "longrope"])
@pytest.mark.parametrize(
    ("place", "key"), [("rope_scaling", "rope_type"), ("rope_scaling", "type"), ("rope_parameters", "rope_type")]
)
def test_other_rotary_positions_are_refused_by_name(tmp_path: Path, place: str, key: str, kind: str) -> None:
    told = refusal(tmp_path, **{place: {key: kind, "factor": 2.0}})
    assert f"rotary positions of the kind '{kind}' are not built, only default and llama3" in told


@pytest.mark.parametrize("key", ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"])
@pytest.mark.parametrize("value", [None, 0, -1.0, "8", True])
def test_a_number_that_stretched_positions_lack_is_named(tmp_path: Path, key: str, value: Any) -> None:
    told = refusal(tmp_path, rope_scaling={**stand_ins.LLAMA_32_1B["rope_scaling"], key: value})
    assert f"the rotary positions' {key} is {value!r}, expected a number above 0" in told


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("qwen2", "use_sliding_window", True),
        ("qwen2", "layer_types", ["full_attention", "sliding_attention"]),
        ("qwen2", "hidden_act", "gelu"),
        ("llama", "hidden_act", "gelu"),
        ("llama", "num_key_value_heads", "2"),
        ("llama", "rope_theta", "much"),
    ],
)
def test_a_value_that_is_not_built_is_one_line_with_its_key(tmp_path: Path, kind: str, key: str, value: Any) -> None:
    told = refusal(tmp_path, kind, **{key: value})
    assert told.startswith(f"config.json: {key}")
    assert "\n" not in told


@pytest.mark.parametrize(("heads", "kv"), [(6, 4), (6, 0), (0, 0), (-6, 2), (2, 6)])
def test_heads_that_do_not_form_groups_are_told(tmp_path: Path, heads: int, kv: int) -> None:
    told = refusal(tmp_path, num_attention_heads=heads, num_key_value_heads=kv)
    assert f"{heads} attention heads do not divide into groups for {kv} key-value heads" in told


def test_heads_that_do_not_divide_the_width_are_told(tmp_path: Path) -> None:
    told = refusal(tmp_path, num_attention_heads=5, num_key_value_heads=1)
    assert "hidden_size 48 does not divide into 5 heads" in told


def test_the_reference_frameworks_guess_of_32_key_value_heads_is_not_made(tmp_path: Path) -> None:
    source = stand_ins.qwen2(tmp_path / "source")
    config = {key: value for key, value in stand_ins.QWEN2.items() if key != "num_key_value_heads"}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match=r"config\.json: num_key_value_heads: Field required"):
        exported(source, tmp_path / "made")


@pytest.mark.parametrize("size", [7, 0, -2])
def test_heads_that_cannot_be_turned_are_told(tmp_path: Path, size: int) -> None:
    assert f"heads of {size} features cannot be turned in pairs" in refusal(tmp_path, head_dim=size)


@pytest.mark.parametrize("size", [1, 2])
def test_a_config_of_another_size_is_told_with_the_tensor(tmp_path: Path, size: int) -> None:
    assert "has shape [288, 48], config.json asks for" in refusal(tmp_path, vocab_size=288 + size)


def test_the_stand_ins_tokenizer_gives_back_what_it_was_given() -> None:
    tokenizer = stand_ins.tokenizer()
    for text in ("the cat and the rain", "naïve 猫 🐈\n\t x", ""):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
        assert max(ids, default=0) < stand_ins.LLAMA["vocab_size"]


def test_the_stand_ins_turns_are_special_tokens() -> None:
    assert stand_ins.tokenizer().encode("<|im_start|>user\nhe<|im_end|>").ids[:1] == [1]
    with tempfile.TemporaryDirectory() as folder:
        source = stand_ins.llama(Path(folder))
        settings = json.loads((source / "generation_config.json").read_text("utf-8"))
    assert settings["eos_token_id"] == [stand_ins.tokenizer().token_to_id("<|im_end|>")]
