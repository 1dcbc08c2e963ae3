"""Agreement: the float32 model's labels pass, others fail. It is never skipped: a task that gives labels gives some for
every text. What cannot run: an empty corpus, a float32 model whose scores are no numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit import conformance, model
from modelkit.checks import agreement
from modelkit.checks.agreement import LABELS
from modelkit.errors import CheckError
from modelkit.tasks.zero_shot_classification import Scored
from modelkit.vocabulary import Artifact, Subject, Verdict
from subjects import copied, fake, texts
from writers import in_file, learned, spoiled

ENTAILMENT = "deberta-entailment"
CORPUS = texts(*(f"text {number:02}\nits hypothesis" for number in range(40)))
READ = [row["text"] for row in agreement.chosen(CORPUS)]


def scores(seed: int = 0, rows: int = len(READ)) -> np.ndarray:
    """float64[rows, labels] that sum to one."""
    made = np.random.default_rng(seed).exponential(size=(rows, len(LABELS)))
    return made / made.sum(1, keepdims=True)


def giving(table: np.ndarray) -> Callable[..., list[list[Scored]]]:
    """`classify` for which these are the scores of the texts that are read, best first."""

    def classify(lines: Sequence[str], labels: Sequence[str]) -> list[list[Scored]]:
        assert (list(lines), tuple(labels)) == (READ, LABELS)
        return [[Scored(labels[n], float(row[n])) for n in np.argsort(-row, kind="stable")] for row in table]

    return classify


def subject(ours: np.ndarray, theirs: np.ndarray) -> Subject:
    made = fake(corpus=CORPUS)
    given_ = {made.artifact.digest: ours, made.reference.digest: theirs}
    return replace(made, open=lambda which, threads=None: SimpleNamespace(classify=giving(given_[which.digest])))


def verdict_of(ours: np.ndarray, theirs: np.ndarray, **limits: float) -> Verdict:
    return agreement.check(subject(ours, theirs), agreement.Options(**limits))


@pytest.fixture
def built(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The int8 variant of a classifier that has learned its task."""
    return learned(tmp_path_factory.getbasetemp(), ENTAILMENT)


# On a built artifact


@pytest.mark.parametrize("variant", ["int8", "int4"])
def test_a_good_artifact_passes(tmp_path_factory, variant):
    verdict = agreement.check(learned(tmp_path_factory.getbasetemp(), ENTAILMENT, variant), agreement.Options())
    assert verdict.outcome == "passed"
    assert verdict.measured["texts"] == agreement.TEXTS


def test_a_config_that_takes_the_contradiction_for_the_entailment_fails(built, tmp_path):
    # The fault this check is for: the logits are right to the last bit, and every label is the worst one.
    def swapped(config: dict[str, Any]) -> None:
        config["label2id"] = {"contradiction": 0, "neutral": 1, "entailment": 2}

    broken = spoiled(built, tmp_path / "copy", in_file("config.json", swapped))
    same = [np.asarray(model.load(one.folder, 1).outputs(["a b\nc", "the cook baked\nfood"]))
            for one in (built.artifact, broken.artifact)]  # fmt: skip
    assert same[0].tobytes() == same[1].tobytes()
    opened = {built.reference.folder: model.load(built.reference.folder, 1)}
    opened[broken.artifact.folder] = model.load(broken.artifact.folder, 1)
    verdict = agreement.check(replace(broken, open=lambda which, threads=None: opened[which.folder]),
                              agreement.Options())  # fmt: skip
    assert verdict.outcome == "failed"
    assert verdict.measured["same_label"] < 0.5


def test_it_is_planned_for_tasks_that_give_labels_and_for_no_others(built, tmp_path_factory):
    assert "agreement" in conformance.plan(built.manifest)
    assert "agreement" not in conformance.plan(learned(tmp_path_factory.getbasetemp(), "llama-summaries").manifest)


def test_the_template_of_the_manifest_is_what_both_models_are_asked_by(built):
    asked: list[Artifact] = []

    @cache
    def opened(folder: Path) -> Any:
        return model.load(folder, 1)

    def recording(which: Artifact, threads: int | None = None) -> Any:
        asked.append(which)
        assert opened(which.folder)._options.hypothesis_template == "This example is about {}."
        return opened(which.folder)

    agreement.check(replace(built, open=recording), agreement.Options())
    assert asked == [built.artifact, built.reference]


# Verdicts


def test_the_same_scores_pass_with_nothing_lost():
    verdict = verdict_of(scores(), scores())
    assert verdict.outcome == "passed"
    assert verdict.measured == {"same_label": 1, "loss_mean": 0, "score_difference": 0, "texts": len(READ)}


def test_scores_go_by_their_label_and_not_by_their_rank():
    # Each model lists its best label first, so equal ranks say nothing.
    verdict = verdict_of(np.roll(scores(), 1, axis=1), scores())
    assert verdict.outcome == "failed"
    assert verdict.measured["same_label"] == 0


def test_the_first_label_counts_and_no_other():
    ours = scores()
    best = np.argsort(-ours, axis=1)
    for row in range(5):
        ours[row, best[row, :2]] = ours[row, best[row, 1::-1]]
    assert verdict_of(ours, scores()).measured["same_label"] == 1 - 5 / len(READ)


def test_the_difference_is_the_mean_over_texts_and_labels():
    ours = scores()
    ours[3, 2] += 0.1
    ours[5, 1] -= 0.02
    assert verdict_of(ours, scores()).measured["score_difference"] == pytest.approx(0.12 / ours.size)


@pytest.mark.parametrize("limit", ["same_label", "loss_mean", "score_difference"])
def test_each_limit_can_fail_alone(limit):
    loose = {"same_label": -1.0, "loss_mean": 9.0, "score_difference": 9.0}
    strict = {"same_label": 1.0, "loss_mean": 0.0, "score_difference": 0.0}
    verdict = verdict_of(scores(1), scores(), **{**loose, limit: strict[limit]})
    assert verdict.outcome == "failed"
    assert verdict.sentence.split()[0] == limit
    assert ";" not in verdict.sentence


def test_the_label_that_costs_most_leads_the_worst():
    ours, theirs = scores(), scores()
    sure, unsure = theirs.max(1).argmax(), theirs.max(1).argmin()
    for row in (sure, unsure):
        ours[row] = np.eye(len(LABELS))[theirs[row].argmin()]
    verdict = verdict_of(ours, theirs)
    assert len(verdict.worst) == agreement.WORST
    first = verdict.worst[0]
    assert (first["text"], first["float32"]) == (READ[sure], LABELS[theirs[sure].argmax()])
    assert first["label"] == LABELS[theirs[sure].argmin()]
    assert first["loss"] == pytest.approx(np.ptp(theirs[sure]), abs=1e-6)
    assert verdict.worst[1]["text"] == READ[unsure]
    assert verdict.measured["loss_mean"] == pytest.approx((np.ptp(theirs[sure]) + np.ptp(theirs[unsure])) / len(READ))


@given(seed=st.integers(0, 200))
def test_a_loss_is_never_negative_and_none_where_the_label_is_the_same(seed):
    ours, theirs = scores(seed), scores(seed + 1)
    found = agreement.losses(ours, theirs)
    assert (found >= 0).all()
    assert not found[ours.argmax(1) == theirs.argmax(1)].any()
    assert (found <= theirs.max(1)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_not_finite_fails_and_its_text_is_named(value):
    ours = scores()
    ours[7, 3] = value
    named = next(row["id"] for row in CORPUS if row["text"].startswith(READ[7]))
    assert verdict_of(ours, scores()).sentence == f"a score of text {named} is not finite (1 such texts)"


def test_float32_scores_that_are_not_finite_are_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="the float32 model's own scores are not finite"):
        verdict_of(scores(), np.full_like(scores(), np.nan))


def test_an_empty_corpus_is_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="the corpus is empty"):
        agreement.check(fake(corpus=()), agreement.Options())


def test_the_verdict_is_strict_json():
    for ours in (scores(), scores(1), np.full_like(scores(), np.nan)):
        json.dumps(asdict(verdict_of(ours, scores())), allow_nan=False)


# What is read


def test_premises_are_read_once_and_without_their_hypotheses():
    corpus = texts("one\nline\nA hypothesis.", "one\nline\nAnother.", "no pair at all")
    longer = texts(*("a text that is longer than both of them" + "." * n for n in range(2)))
    assert [row["text"] for row in agreement.chosen(corpus + longer)] == ["one\nline", "no pair at all"]


@given(count=st.integers(1, 200))
def test_the_shorter_half_is_read_and_no_more_than_32_of_it(count):
    corpus = texts(*("x" * (n + 1) for n in range(count)))
    found = agreement.chosen(corpus)
    half = (count + 1) // 2
    assert len(found) == min(half, agreement.TEXTS)
    assert max(len(row["text"]) for row in found) == half


def test_what_was_read_of_the_copy_is_what_the_corpus_has(built, tmp_path):
    corpus = {row["text"].rpartition("\n")[0] for row in copied(built, tmp_path / "copy").corpus}
    assert {row["text"] for row in agreement.chosen(built.corpus)} <= corpus
