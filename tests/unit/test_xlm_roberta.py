"""architectures/xlm_roberta.py against what transformers' XLMRobertaModel computed (tests/references)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import small_models
from modelkit import runtime
from modelkit.errors import StageError
from modelkit.graphs.tape import Tape
from stand_ins.xlm_roberta import XLM_ROBERTA, padded_feed, xlm_roberta

RECORD = json.loads((Path(__file__).parents[1] / "references" / "xlm_roberta.json").read_text())


def opened(folder: Path, seed: int = 0, **config: Any) -> runtime.Session:
    made = small_models.exported(xlm_roberta(folder / "source", seed, **config), folder / "made")
    return runtime.Session(made / "model.onnx", 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> runtime.Session:
    return opened(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("row", RECORD["rows"], ids=lambda row: row["case"])
def test_the_graph_computes_what_transformers_computes(tmp_path: Path, row: dict[str, Any]) -> None:
    session = opened(tmp_path, row["seed"], **row["config"])
    feed = {name: np.array(row[name], np.int64) for name in ("input_ids", "attention_mask")}
    assert 0 in feed["attention_mask"]
    np.testing.assert_allclose(session.run(feed)[0][:, ::4, ::8], row["hidden[:, ::4, ::8]"], atol=1e-5)


def test_it_takes_ids_and_mask_alone(tiny: runtime.Session) -> None:
    ids = ("tensor(int64)", ["batch", "sequence"])
    assert tiny.inputs == {"input_ids": ids, "attention_mask": ids}
    assert tiny.outputs == {
        "last_hidden_state": ("tensor(float)", ["batch", "sequence", 32]),
        "sentence_embedding": ("tensor(float)", ["batch", 32]),
    }


@settings(deadline=None, max_examples=30)
@given(before=st.integers(0, 6), after=st.integers(0, 20), seed=st.integers(0, 99))
def test_padding_changes_nothing_on_either_side(tiny: runtime.Session, before: int, after: int, seed: int) -> None:
    feed = padded_feed(XLM_ROBERTA, seed=seed)
    fills = {"input_ids": XLM_ROBERTA["pad_token_id"], "attention_mask": 0}
    more = {n: np.pad(a, ((0, 0), (before, after)), constant_values=fills[n]) for n, a in feed.items()}
    hidden = tiny.run(feed)[0]
    np.testing.assert_allclose(
        tiny.run(more)[0][:, before : before + hidden.shape[1]] * feed["attention_mask"][..., None],
        hidden * feed["attention_mask"][..., None],
        atol=1e-5,
    )


@settings(deadline=None, max_examples=30)
@given(data=st.data(), pad=st.integers(0, 3))
def test_positions_are_those_that_the_original_counts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, pad: int
) -> None:
    from modelkit.architectures.xlm_roberta import _positions
    from modelkit.graphs import files
    from modelkit.graphs.tape import Drawn, model_of, output, typed

    rows = data.draw(st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=3))
    folder = tmp_path_factory.mktemp("positions")
    tensors = files.TensorFile(folder)
    tape, ids = Tape(tensors), typed("ids", "int64", ["batch", "sequence"])
    at = output(_positions(tape, ids, pad), "at", ["batch", "sequence"], "int64")
    files.save(model_of(tape, "positions", Drawn([ids], [at])), tensors)
    counted = []
    for row in rows:
        count, places = pad, []
        for token in row:
            count += token != pad
            places.append(pad if token == pad else count)
        counted.append(places)
    np.testing.assert_array_equal(small_models.run(folder / "model.onnx", {"ids": np.array(rows)})[0], counted)


def test_every_position_but_the_padding_s_can_be_used(tmp_path: Path) -> None:
    session = opened(tmp_path, max_position_embeddings=34)
    feed = {"input_ids": np.full((1, 32), 5), "attention_mask": np.ones((1, 32), np.int64)}
    assert np.isfinite(session.run(feed)[0]).all()


@pytest.mark.parametrize(("rows", "pad", "left"), [(34, 1, 32), (33, 1, 31), (33, 0, 32), (32, 0, 31)])
def test_a_text_may_be_as_long_as_there_are_positions_after_the_padding_s(
    tmp_path: Path, rows: int, pad: int, left: int
) -> None:
    source = xlm_roberta(tmp_path / "source", max_position_embeddings=rows, pad_token_id=pad)
    small_models.exported(source, tmp_path / "made", max_tokens=left)
    with pytest.raises(StageError, match=f"text.max_tokens is {left + 1}, the model has {left} positions"):
        small_models.exported(source, tmp_path / "too long", max_tokens=left + 1)


def test_a_checkpoint_of_a_task_head_is_read_too(tmp_path: Path) -> None:
    bare, headed = (xlm_roberta(tmp_path / name) for name in ("bare", "headed"))
    tensors = {f"roberta.{name}": array for name, array in load_file(bare / "model.safetensors").items()}
    head = {"lm_head.bias": np.ones(64, np.float32), "classifier.dense.weight": np.ones((2, 32), np.float32)}
    save_file(tensors | head, headed / "model.safetensors")
    one, other = (small_models.exported(source, tmp_path / f"{source.name} made") for source in (bare, headed))
    assert small_models.digests(one) == small_models.digests(other)


@pytest.mark.parametrize(
    ("key", "value"), [("position_embedding_type", "relative_key"), ("is_decoder", True), ("hidden_act", "silu")]
)
def test_what_is_not_built_is_told_with_its_key(tmp_path: Path, key: str, value: Any) -> None:
    source = xlm_roberta(tmp_path / "source")
    (source / "config.json").write_text(json.dumps({**XLM_ROBERTA, key: value}))
    with pytest.raises(StageError) as caught:
        small_models.exported(source, tmp_path / "made")
    assert str(caught.value).startswith(f"config.json: {key}: ")


@pytest.mark.parametrize("scheme", ["w8a8-per-token", "w4a8-per-token", "int8-dynamic", "fp16"])
def test_a_smaller_one_stays_near(tmp_path: Path, scheme: str) -> None:
    made = small_models.exported(xlm_roberta(tmp_path / "source", vocab_size=600), tmp_path / "made")
    smaller = small_models.quantized(made, tmp_path / "smaller", scheme)
    feed = padded_feed({**XLM_ROBERTA, "vocab_size": 600}, batch=12)
    ours, theirs = (small_models.run(folder / "model.onnx", feed)[1] for folder in (smaller, made))
    assert small_models.cosines(ours, theirs).min() > (0.9 if scheme.startswith("w4") else 0.98)
