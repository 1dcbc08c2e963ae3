"""architectures/t5.py against what transformers computed for the same stand-ins (references/t5.json), and against
itself: with and without a past, in one file and in three."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_models
from modelkit import graphs, kinds, runtime
from modelkit.checks import hygiene, signature
from modelkit.digests import digest_folder
from modelkit.errors import StageError
from modelkit.exporters import direct
from modelkit.graphs import files
from modelkit.graphs.relative import bucket
from modelkit.vocabulary import Signature, TensorSpec
from stand_ins.t5 import T5, t5, tokenizer

RECORDED = json.loads((Path(__file__).parents[1] / "references" / "t5.json").read_text())["models"]
WIDE = {"vocab_size": 4096, "d_model": 128, "d_kv": 32, "d_ff": 512}
"""Wide enough that the weights, not the nodes, are what the file is made of."""


def exported(source: Path, into: Path, *, split: bool = False) -> Path:
    """The converted model of `source` in the new folder `into`."""
    into.mkdir(parents=True)
    manifest: Any = SimpleNamespace(task=SimpleNamespace(kind="text2text-generation", options=None))
    direct.export(manifest, source, into, direct.Options(split=split))
    return into


def built(folder: Path, *, split: bool = False, seed: int = 0, **config: Any) -> Path:
    """Through export, the scheme fp32 and the last stage: the finished folder."""
    converted = exported(t5(folder / "source", seed, **config), folder / "converted", split=split)
    (folder / "finished").mkdir()
    for part in graphs.parts(converted):
        # As the quantize stage does it: each part by itself.
        quantized = small_models.quantized(graphs.checkpoint(converted, part), folder / "quantized" / part, "fp32")
        files.finish(quantized, folder / "finished", part)
    return folder / "finished"


class Answers:
    """The one-file model in `folder`, answering greedily; the logits of every step are kept."""

    def __init__(self, folder: Path) -> None:
        self.session = runtime.Session(folder / "model.onnx", threads=1)
        self.logits: list[np.ndarray] = []

    def empty(self, batch: int) -> dict[str, np.ndarray]:
        """The pasts before the first step."""
        pasts = {name: shape for name, (_, shape) in self.session.inputs.items() if name.startswith("past")}
        return {name: np.zeros((batch, shape[1], 0, shape[3]), np.float32) for name, shape in pasts.items()}

    def step(self, text: dict[str, np.ndarray], tokens: np.ndarray, past: dict[str, np.ndarray], later: bool) -> Any:
        """Logits of the last position, and the next past."""
        feed = {**text, "decoder_input_ids": tokens, **past, "use_cache_branch": np.array([later])}
        given = dict(zip(self.session.outputs, self.session.run(feed), strict=True))
        self.logits.append(given["logits"])
        present = {name: given[name.replace("past_key_values", "present")] for name in past}
        return given["logits"][:, -1], present

    def greedy(self, text: dict[str, np.ndarray], steps: int, *, cached: bool = True) -> np.ndarray:
        """int64[batch, steps + 1], the start token first."""
        tokens = np.zeros((len(text["input_ids"]), 1), np.int64)
        past = empty = self.empty(len(tokens))
        for number in range(steps):
            if cached:
                scores, past = self.step(text, tokens[:, -1:], past, number > 0)
            else:
                scores, _ = self.step(text, tokens, empty, False)
            tokens = np.concatenate([tokens, scores.argmax(-1)[:, None]], 1)
        return tokens


def greedy_of_three(folder: Path, text: dict[str, np.ndarray], steps: int) -> np.ndarray:
    """The same of the split files."""
    session = {path.stem: runtime.Session(path, threads=1) for path in folder.glob("*.onnx")}
    encoded = session["encoder_model"].run(text)[0]
    tokens, known = np.zeros((len(encoded), 1), np.int64), {"encoder_hidden_states": encoded}
    for number in range(steps):
        now = session["decoder_with_past_model" if number else "decoder_model"]
        feed = {**known, "encoder_attention_mask": text["attention_mask"], "input_ids": tokens[:, -1:]}
        given = dict(zip(now.outputs, now.run({name: feed[name] for name in now.inputs}), strict=True))
        tokens = np.concatenate([tokens, given.pop("logits")[:, -1].argmax(-1)[:, None]], 1)
        known.update({name.replace("present", "past_key_values"): value for name, value in given.items()})
    return tokens


def texts(seed: int = 1, batch: int = 3, length: int = 11) -> dict[str, np.ndarray]:
    """Right-padded texts of different lengths."""
    random = np.random.default_rng(seed)
    mask = (np.arange(length) < random.integers(1, length + 1, (batch, 1))).astype(np.int64)
    return {"input_ids": random.integers(5, T5["vocab_size"], (batch, length)) * mask, "attention_mask": mask}


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One recorded model: what was recorded, and the finished folder of the same stand-in."""
    record, folder = RECORDED[request.param], tmp_path_factory.mktemp("t5")
    finished = built(folder, seed=record["seed"], **record["config"])
    assert sha256((folder / "source" / "model.safetensors").read_bytes()).hexdigest() == record["weights"]
    text = {name: np.array(record[name]) for name in ("input_ids", "attention_mask")}
    return SimpleNamespace(**record, finished=finished, text=text, folder=folder)


def test_the_tokens_of_the_answer_are_those_of_transformers(recorded: Any) -> None:
    tokens = Answers(recorded.finished).greedy(recorded.text, len(recorded.greedy[0]) - 1)
    assert tokens.tolist() == recorded.greedy


def test_the_logits_of_all_tokens_at_once_are_those_of_transformers(recorded: Any) -> None:
    answers, fed = Answers(recorded.finished), np.array(recorded.greedy)[:, :-1]
    answers.step(recorded.text, fed, answers.empty(len(fed)), later=False)
    logits = answers.logits[0]
    np.testing.assert_allclose(logits[:, 0, :8], recorded.first, rtol=0, atol=5e-5)
    np.testing.assert_allclose(logits[:, -1, :8], recorded.last, rtol=0, atol=5e-5)
    np.testing.assert_allclose(np.linalg.norm(logits[:, -1], axis=-1), recorded.lengths, rtol=1e-6)


def test_the_tokens_with_a_past_are_those_without(recorded: Any) -> None:
    answers = Answers(recorded.finished)
    np.testing.assert_array_equal(answers.greedy(texts(), 20), answers.greedy(texts(), 20, cached=False))


def test_three_files_answer_as_one(recorded: Any, tmp_path: Path) -> None:
    split = built(tmp_path, split=True, seed=recorded.seed, **recorded.config)
    assert sorted(graphs.parts(split)) == ["decoder_model", "decoder_with_past_model", "encoder_model"]
    tokens = greedy_of_three(split, recorded.text, len(recorded.greedy[0]) - 1)
    assert tokens.tolist() == recorded.greedy


def test_a_step_of_several_tokens_is_several_steps_of_one(tmp_path: Path) -> None:
    answers, text = Answers(built(tmp_path)), texts()
    tokens = np.array([[0, 9, 40, 7, 23]] * 3)
    whole, _ = answers.step(text, tokens, answers.empty(3), later=False)
    _, past = answers.step(text, tokens[:, :2], answers.empty(3), later=False)
    parted, _ = answers.step(text, tokens[:, 2:], past, later=True)
    np.testing.assert_allclose(parted, whole, atol=1e-5)


def test_padding_changes_no_answer(tmp_path: Path) -> None:
    answers, text = Answers(built(tmp_path)), texts(length=6)
    longer = {name: np.pad(array, ((0, 0), (0, 9)), constant_values=0) for name, array in text.items()}
    np.testing.assert_array_equal(answers.greedy(text, 12), answers.greedy(longer, 12))


def test_later_steps_do_not_look_at_the_text_again(tmp_path: Path) -> None:
    answers, text = Answers(built(tmp_path)), texts()
    scores, past = answers.step(text, np.zeros((3, 1), np.int64), answers.empty(3), later=False)
    token = scores.argmax(-1)[:, None]
    expected, _ = answers.step(text, token, past, later=True)
    other = {**text, "input_ids": text["input_ids"][:, ::-1].copy()}
    found, passed = answers.step(other, token, past, later=True)
    np.testing.assert_array_equal(found, expected)
    for name in (name for name in past if ".encoder." in name):
        np.testing.assert_array_equal(passed[name], past[name])


def test_every_weight_is_stored_once(tmp_path: Path) -> None:
    finished = built(tmp_path, **WIDE)
    weights = (tmp_path / "source" / "model.safetensors").stat().st_size
    assert (finished / "model.onnx").stat().st_size <= 1.02 * weights


def test_copies_of_the_shared_table_are_left_alone(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    plain, source = built(tmp_path / "plain"), t5(tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    save_file({**weights, **dict.fromkeys(copies, weights["shared.weight"])}, source / "model.safetensors")
    repeated = small_models.finished(exported(source, tmp_path / "converted"), tmp_path / "finished")
    assert repeated.read_bytes() == (plain / "model.onnx").read_bytes()


@pytest.mark.parametrize("split", [False, True])
def test_two_builds_give_the_same_bytes(tmp_path: Path, split: bool) -> None:
    first, second = (built(tmp_path / name, split=split) for name in ("first", "second"))
    assert small_models.digests(first) == small_models.digests(second)


@pytest.mark.parametrize("split", [False, True])
def test_signature_and_hygiene_pass(tmp_path: Path, split: bool) -> None:
    finished = built(tmp_path, split=split)
    for path in graphs.parts(finished).values():
        onnx.checker.check_model(str(path), full_check=True)
    subject: Any = SimpleNamespace(
        artifact=SimpleNamespace(folder=finished, files=digest_folder(finished)),
        manifest=SimpleNamespace(
            signatures=three_signatures() if split else {"model": one_signature()},
        ),
    )
    for check in (signature, hygiene):
        verdict = check.check(subject, check.Options())
        assert (verdict.outcome, verdict.sentence) == ("passed", verdict.sentence)


def pairs(template: str, axis: str) -> list[TensorSpec]:
    """Keys and values of the stand-in's two layers."""
    return [TensorSpec(template.format(n, part), "float32", ("batch", 4, axis, 8))
            for n in range(2) for part in ("key", "value")]  # fmt: skip


TEXT = [TensorSpec(name, "int64", ("batch", "encoder_sequence")) for name in ("input_ids", "attention_mask")]
LOGITS = TensorSpec("logits", "float32", ("batch", "decoder_sequence", T5["vocab_size"]))
PAST = [
    *pairs("past_key_values.{}.decoder.{}", "past_decoder_sequence"),
    *pairs("past_key_values.{}.encoder.{}", "encoder_sequence"),
]
PRESENT = [LOGITS, *pairs("present.{}.decoder.{}", "total_decoder_sequence")]


def one_signature() -> Signature:
    """What a manifest says of the one file."""
    answer, later = (
        TensorSpec("decoder_input_ids", "int64", ("batch", "decoder_sequence")),
        TensorSpec("use_cache_branch", "bool", (1,)),
    )
    outputs = [*PRESENT, *pairs("present.{}.encoder.{}", "encoder_sequence")]
    return Signature((*TEXT, answer, *PAST, later), tuple(outputs))


def three_signatures() -> dict[str, Signature]:
    """What a manifest says of the three."""
    hidden = TensorSpec("encoder_hidden_states", "float32", ("batch", "encoder_sequence", 32))
    fed = [
        TensorSpec("encoder_attention_mask", "int64", ("batch", "encoder_sequence")),
        TensorSpec("input_ids", "int64", ("batch", "decoder_sequence")),
    ]
    first = [LOGITS, *pairs("present.{}.decoder.{}", "decoder_sequence")]
    return {
        "encoder_model": Signature(tuple(TEXT), (TensorSpec("last_hidden_state", "float32", hidden.shape),)),
        "decoder_model": Signature((*fed, hidden), (*first, *pairs("present.{}.encoder.{}", "encoder_sequence"))),
        "decoder_with_past_model": Signature((*fed, *PAST), tuple(PRESENT)),
    }


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder"),
        ({"relative_attention_max_distance": 2}, "8 buckets do not reach to a distance of 2"),
        ({"relative_attention_num_buckets": 1}, "1 buckets do not reach"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(tmp_path: Path, config: dict[str, Any], sentence: str) -> None:
    source = t5(tmp_path / "source")
    (source / "config.json").write_text(json.dumps({**T5, **config}))
    with pytest.raises(StageError, match=sentence):
        exported(source, tmp_path / "converted")


def test_a_config_with_too_few_layers_is_refused(tmp_path: Path) -> None:
    source = t5(tmp_path / "source")
    (source / "config.json").write_text(json.dumps({**T5, "num_decoder_layers": 1}))
    with pytest.raises(StageError, match=r"decoder\.block\.1"):
        exported(source, tmp_path / "converted")


def test_the_decoder_has_as_many_layers_as_the_encoder_unless_told_otherwise() -> None:
    options = kinds.load("architectures", "t5").Options
    sizes = {"vocab_size": 9, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 5, "num_heads": 2}
    assert options(**sizes).decoder_layers == 5
    assert options(**sizes, num_decoder_layers=2).decoder_layers == 2


def test_the_buckets_of_t5_are_exact_up_to_eight_and_double_from_there() -> None:
    # 32 buckets, 128 places: half for what comes after, 8 of 16 exact, then 8 for each factor of 16 in distance.
    assert [bucket(-n, 32, 128, both_ways=True) for n in (0, 1, 7, 8, 16, 32, 64, 127, 500)] == [
        0, 1, 7, 8, 10, 12, 14, 15, 15,
    ]  # fmt: skip
    assert [bucket(n, 32, 128, both_ways=True) for n in (1, 7, 16)] == [17, 23, 26]
    assert [bucket(n, 32, 128, both_ways=False) for n in (5, -15, -16, -128)] == [0, 15, 16, 31]


@given(st.integers(-300, 300), st.sampled_from([(32, 128), (8, 20), (64, 256)]), st.booleans())
def test_farther_keys_never_share_a_nearer_bucket(distance: int, shape: tuple[int, int], both_ways: bool) -> None:
    near, far = (bucket(-abs(n), *shape, both_ways=both_ways) for n in (distance, abs(distance) + 1))
    assert 0 <= near <= far <= (shape[0] // 2 if both_ways else shape[0]) - 1


def test_the_stand_ins_tokenizer_has_the_ids_of_codet5() -> None:
    made = tokenizer()
    assert [made.token_to_id(token) for token in ("<pad>", "<s>", "</s>")] == [0, 1, 2]
    encoded = made.encode("def größe(a): return a")
    assert (encoded.ids[0], encoded.ids[-1]) == (1, 2)
    assert made.decode(encoded.ids) == "def größe(a): return a"
