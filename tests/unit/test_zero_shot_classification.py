"""tasks/zero_shot_classification.py: pairs of texts in, logits and ranked labels out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_models
import stand_ins
from modelkit import runtime
from modelkit.errors import InputError, ManifestError, StageError
from modelkit.exporters import direct
from modelkit.tasks import zero_shot_classification as task
from modelkit.vocabulary import Choice
from stand_ins.deberta_v2 import DEBERTA_V2, deberta_v2

RECORDED = json.loads((Path(__file__).parents[1] / "references" / "deberta_v2.json").read_text("utf-8"))["classified"]
WORDS = st.lists(st.sampled_from(stand_ins.WORDS), max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(WORDS, WORDS).map("\n".join), max_size=9)
LABELS = ["house", "money", "river"]


def made_in(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A folder with all that a classifier reads."""
    source, made = deberta_v2(folder / "source", seed, **config), folder / "made"
    made.mkdir()
    manifest = replace(small_models.manifest_of(), task=Choice("zero-shot-classification", task.Options(task.Text(32))))
    direct.export(manifest, source, made, direct.Options())
    for name in ("tokenizer.json", "config.json"):
        (made / name).write_bytes((source / name).read_bytes())
    return made


def opened(folder: Path, max_tokens: int = 32, **options: Any) -> task.Classifier:
    sessions = runtime.Sessions({"model": folder / "model.onnx"}, 1)
    return task.open_(folder, sessions, task.Options(task.Text(max_tokens), **options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_in(tmp_path_factory.mktemp("zero-shot"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> task.Classifier:
    return opened(folder)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> task.Classifier:
    folder = made_in(tmp_path_factory.mktemp("recorded"), RECORDED["seed"], **RECORDED["config"])
    return opened(folder, RECORDED["max_tokens"])


# As the pipeline of transformers


@pytest.mark.parametrize("number", range(len(RECORDED["answers"]) - 1))
def test_labels_and_scores_are_those_of_the_pipeline(recorded: task.Classifier, number: int) -> None:
    question = dict(RECORDED["answers"][number])
    expected, labels = question.pop("ranked"), question.pop("labels")
    found = recorded.classify(RECORDED["texts"], labels, **question)
    assert [[one.label for one in row] for row in found] == [[label for label, _ in row] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose([one.score for one in ours], [score for _, score in theirs], atol=2e-6)


def test_the_recording_cuts_a_premise(recorded: task.Classifier) -> None:
    # Otherwise the comparison above would say nothing of it.
    assert max(len(recorded._tokenizer.encode(text).ids) for text in RECORDED["texts"]) > RECORDED["max_tokens"]


def test_a_label_that_leaves_no_room_for_a_text_is_refused_unlike_in_the_pipeline(recorded: task.Classifier) -> None:
    labels = RECORDED["answers"][-1]["labels"]
    assert not all(map(recorded.fits, labels))
    with pytest.raises(InputError, match=r"the hypothesis of the label 'dog on .* has 26 tokens, 20 leave room"):
        recorded.classify(RECORDED["texts"], labels)


@pytest.mark.parametrize(
    ("labels", "contradiction"),
    [(("entailment", "neutral", "contradiction"), 2), (("contradiction", "entailment", "neutral"), 0),
     (("Entailment", "not_entailment"), 1), (("not entailed", "ENTAILED"), 0)],
)  # fmt: skip
def test_a_label_alone_is_weighed_against_the_contradiction(
    tmp_path: Path, labels: tuple[str, ...], contradiction: int
) -> None:
    named = {str(number): label for number, label in enumerate(labels)}
    folder = made_in(tmp_path, id2label=named, label2id={label: n for n, label in enumerate(labels)})
    classifier = opened(folder)
    logits = classifier.outputs(["a cat\nThis example is house."])[0]
    place = next(n for n, label in enumerate(labels) if label.lower().startswith("entail"))
    expected = 1 / (1 + np.exp(logits[contradiction] - logits[place]))
    assert classifier.classify("a cat", ["house"])[0].score == pytest.approx(expected, abs=1e-6)


# Classifying


def test_scores_of_a_text_sum_to_one_and_fall(tiny: task.Classifier) -> None:
    scores = [one.score for one in tiny.classify("the cat sat on the mat", LABELS)]
    assert sum(scores) == pytest.approx(1)
    assert scores == sorted(scores, reverse=True)


def test_a_text_gives_one_ranking_and_a_list_gives_one_for_each(tiny: task.Classifier) -> None:
    alone, listed = tiny.classify("a cat", LABELS), tiny.classify(["a cat", "a dog"], LABELS)
    assert {one.label for one in alone} == set(LABELS)
    assert len(listed) == 2
    assert [one.label for one in listed[0]] == [one.label for one in alone]


def test_the_manifests_options_are_what_classify_does_unless_told_otherwise(
    folder: Path, tiny: task.Classifier
) -> None:
    set_up = opened(folder, hypothesis_template="it is {}", multi_label=True)
    told = tiny.classify("a cat", LABELS, hypothesis_template="it is {}", multi_label=True)
    assert set_up.classify("a cat", LABELS) == told
    plain = set_up.classify("a cat", LABELS, hypothesis_template="This example is {}.", multi_label=False)
    assert plain == tiny.classify("a cat", LABELS)


def test_a_label_with_braces_is_text(tiny: task.Classifier) -> None:
    assert {one.label for one in tiny.classify("a cat", ["{}", "{0.__class__}"])} == {"{}", "{0.__class__}"}


def test_equal_labels_keep_their_order_and_their_number(tiny: task.Classifier) -> None:
    found = tiny.classify("a cat", ["dog", "dog"])
    assert [tuple(one) for one in found] == [("dog", pytest.approx(0.5)), ("dog", pytest.approx(0.5))]


def test_each_text_is_tokenized_once(tiny: task.Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    tokenizer = tiny._tokenizer

    class Counting:
        def encode(self, text: str, **options: Any) -> Any:
            return tokenizer.encode(text, **options)

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            seen.extend(texts)
            return tokenizer.encode_batch_fast(texts, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    monkeypatch.setattr(tiny, "_tokenizer", Counting())
    tiny.classify(["a cat", "a dog"], LABELS)
    assert sorted(seen) == sorted(["a cat", "a dog", *(f"This example is {label}." for label in LABELS)])


@pytest.mark.parametrize(
    ("texts", "labels", "told"),
    [
        ("a cat", [], "classify needs at least one label"),
        ([], ["dog"], "classify needs at least one text"),
        ("a cat", "dog", "expected labels to be a list of labels, got 'dog'; put the one label in brackets"),
        ("a cat", ["dog", 1], "expected labels[1] to be a text, got 1"),
        (None, ["dog"], "expected texts to be a list of texts, got None"),
        ([None], ["dog"], "expected texts[0] to be a text, got None"),
    ],
)
def test_nothing_to_rank_is_refused(tiny: task.Classifier, texts: Any, labels: Any, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        tiny.classify(texts, labels)


@pytest.mark.parametrize("wish", [{"batch_size": 0}, {"multi_label": "yes"}, {"hypothesis_template": 3}])
def test_an_odd_argument_is_named(tiny: task.Classifier, wish: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"expected {next(iter(wish))} to be"):
        tiny.classify("a cat", ["dog"], **wish)


def test_a_template_without_a_slot_is_refused(tiny: task.Classifier) -> None:
    with pytest.raises(InputError, match=r"'it is so' has no \{\}"):
        tiny.classify("a cat", ["dog"], hypothesis_template="it is so")
    with pytest.raises(ManifestError, match=r"expected \{\} in hypothesis_template"):
        task.Options(hypothesis_template="it is so")


# Pairs


@settings(max_examples=30)
@given(pairs=PAIRS)
def test_each_pair_gets_the_logits_it_gets_alone(tiny: task.Classifier, pairs: list[str]) -> None:
    together = tiny.outputs(pairs)
    assert (together.shape, together.dtype) == ((len(pairs), 3), np.float32)
    for row, pair in enumerate(pairs):
        np.testing.assert_allclose(together[row], tiny.outputs([pair])[0], atol=1e-5)


@settings(max_examples=30)
@given(pairs=PAIRS, size=st.integers(1, 10))
def test_the_size_of_a_batch_changes_nothing(tiny: task.Classifier, pairs: list[str], size: int) -> None:
    np.testing.assert_allclose(tiny.outputs(pairs, batch_size=size), tiny.outputs(pairs), atol=1e-5)


@given(premise=st.text(st.characters(codec="utf-8"), max_size=60), hypothesis=WORDS, room=st.integers(6, 40))
def test_a_pair_is_encoded_as_the_tokenizer_does_when_it_cuts_the_first_alone(
    folder: Path, premise: str, hypothesis: str, room: int
) -> None:
    from modelkit.tokenizer import read_tokenizer

    tokenizer = read_tokenizer(folder / "tokenizer.json")
    plain = tokenizer.encode(premise, hypothesis)
    spare = len(tokenizer.encode(premise, add_special_tokens=False).ids) - (len(plain.ids) - room)
    if len(plain.ids) > room and spare > 0:
        tokenizer.enable_truncation(room, strategy="only_first")
        plain = tokenizer.encode(premise, hypothesis)
    (found,) = FOR_ENCODING[folder, room]._encoded([(premise, hypothesis)])
    assert (found.ids, found.type_ids) == (plain.ids, plain.type_ids)


class _Opened(dict[tuple[Path, int], task.Classifier]):
    def __missing__(self, key: tuple[Path, int]) -> task.Classifier:
        return self.setdefault(key, opened(*key))


FOR_ENCODING = _Opened()


def test_types_tell_the_hypothesis_from_the_premise(tmp_path: Path) -> None:
    typed = opened(made_in(tmp_path, type_vocab_size=2))
    seen = []
    run = typed._session.run
    typed._session.run = lambda feed, outputs: seen.append(feed) or run(feed, outputs)  # type: ignore[method-assign]
    typed.outputs(["a cat\na dog ran"])
    assert seen[0]["token_type_ids"].tolist() == [[0] * 4 + [1] * 4]


def test_the_last_line_is_the_hypothesis(tiny: task.Classifier) -> None:
    np.testing.assert_array_equal(tiny.outputs(["a cat\na dog\nran"]), tiny._judge([("a cat\na dog", "ran")], 1))


def test_a_text_of_one_line_is_no_pair(tiny: task.Classifier) -> None:
    with pytest.raises(InputError, match="the text 'a cat' is no pair; write the premise"):
        tiny.outputs(["a cat"])


def test_a_bare_text_is_refused(tiny: task.Classifier) -> None:
    with pytest.raises(InputError, match="a list of texts"):
        tiny.outputs("a cat\na dog")


# Models that do not fit


def config_of(folder: Path, **config: Any) -> Path:
    deberta_v2(folder)
    (folder / "config.json").write_text(json.dumps({**DEBERTA_V2, **config}))
    return folder


def test_a_fitting_model_is_accepted(folder: Path) -> None:
    task.verify(folder, 96)


def test_labels_are_found_in_id2label_when_label2id_is_missing(tmp_path: Path) -> None:
    assert task.entailment(config_of(tmp_path, label2id=None, id2label={"0": "no", "1": "ENTAILMENT"})) == 1


@pytest.mark.parametrize("labels", [{"positive": 0, "negative": 1}, {"not_entailment": 0}])
def test_a_model_without_entailment_is_told_with_its_labels(tmp_path: Path, labels: dict[str, int]) -> None:
    with pytest.raises(StageError, match=f"names no label for entailment; it has {', '.join(labels)}; zero-shot"):
        task.verify(config_of(tmp_path, label2id=labels), 96)


def test_a_model_without_any_labels_is_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="names no label for entailment; it has none"):
        task.verify(config_of(tmp_path, label2id=None, id2label=None), 96)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", r"config\.json holds no JSON object"),
        ("{", r"config\.json is no JSON"),
        ('{"label2id": [1]}', r"the labels of config\.json cannot be read"),
        ('{"label2id": {"entailment": "x"}}', r"the labels of config\.json cannot be read"),
    ],
)
def test_labels_that_cannot_be_read_are_told_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    (config_of(tmp_path) / "config.json").write_text(content)
    with pytest.raises(StageError, match=told) as caught:
        task.verify(tmp_path, 96)
    assert "\n" not in str(caught.value)


def test_a_missing_config_json_is_told(tmp_path: Path) -> None:
    (config_of(tmp_path) / "config.json").unlink()
    with pytest.raises(StageError, match=r"no config\.json in the source; add it to `source\.files`"):
        task.verify(tmp_path, 96)


def test_a_strangers_tokenizer_is_told(folder: Path) -> None:
    with pytest.raises(StageError, match="the embedding table ends at 9"):
        task.verify(folder, 10)


def test_a_model_of_another_task_is_told(tmp_path: Path) -> None:
    made = small_models.exported(stand_ins.bert(tmp_path / "source"), tmp_path / "made")
    for name in ("tokenizer.json", "config.json"):
        (made / name).write_bytes((tmp_path / "source" / name).read_bytes())
    with pytest.raises(StageError, match=r"zero-shot-classification feeds input_ids, .* and reads logits"):
        opened(made)


def test_a_length_without_room_for_both_texts_is_refused() -> None:
    with pytest.raises(ManifestError, match="expected max_tokens of at least 5, got 4"):
        task.Text(4)
