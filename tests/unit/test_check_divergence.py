"""Divergence: the same distributions pass, others fail, figures are those of the formulas. It is never skipped: a task
that gives text has tokens to compare along. What cannot run: a float32 model that is no number, no token at all."""

from __future__ import annotations

import json
import weakref
from dataclasses import asdict, replace
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import writers
from modelkit.checks import divergence
from modelkit.errors import CheckError
from modelkit.generation import distributions
from modelkit.generation.answers import Written
from modelkit.vocabulary import Subject, Verdict
from subjects import fake, texts
from writers import LLAMA, T5, Fault, Writer, chance, in_matrix, swapped, writing

WIDTH = 40
TABLES = {LLAMA: "embed_tokens.weight/int8", T5: "shared.weight/int8"}
OUTPUTS = {
    LLAMA: "layers.1.self_attn.o_proj.weight/int8",
    T5: "encoder.block.1.layer.0.SelfAttention.o.weight/int8",
}


def rows(tokens: int = 30, seed: int = 0, spread: float = 2) -> Any:
    return np.random.default_rng(seed).normal(0, spread, (tokens, WIDTH)).astype(np.float32)


class Scored:
    """Gives these scores along these tokens."""

    def __init__(self, *scores: Any) -> None:
        self._scores = scores

    def passages(self, lines: list[str]) -> list[Written]:
        return [Written([0], [n % WIDTH for n in range(len(scores))], line)
                for line, scores in zip(lines, self._scores, strict=True)]  # fmt: skip

    def scores(self, written: list[Written]) -> Any:
        return iter(self._scores)


def compared(ours: Any, theirs: Any, **limits: float) -> Verdict:
    """The verdict on one text, or several."""
    ours, theirs = ([one] if isinstance(one, np.ndarray) else one for one in (ours, theirs))
    subject = writing(Scored(*ours), Scored(*theirs), *(f"text {n}" for n in range(len(theirs))))
    return divergence.check(subject, replace(divergence.Options(), **limits))


def test_the_same_scores_pass_with_nothing_lost():
    verdict = compared(rows(), rows())
    assert verdict.outcome == "passed"
    told = {key: verdict.measured[key] for key in ("kl_mean", "kl_p99", "same_top", "perplexity_ratio", "tokens")}
    assert told == {"kl_mean": 0, "kl_p99": 0, "same_top": 1, "perplexity_ratio": 1, "tokens": 30}


@given(shift=st.floats(-50, 50))
def test_what_softmax_does_not_see_does_not_matter(shift):
    verdict = compared(rows() + np.float32(shift), rows())
    assert verdict.measured["kl_mean"] < 1e-9
    assert verdict.measured["same_top"] == 1


def test_the_divergence_is_the_sum_over_the_float32_models_probabilities():
    theirs, ours = np.log(np.float32([[0.75, 0.25]])), np.log(np.float32([[0.5, 0.5]]))
    found = divergence.compared(theirs, ours, [1])
    assert found.kl[0] == pytest.approx(0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5))
    assert (found.theirs[0], found.ours[0]) == (pytest.approx(log(0.25)), pytest.approx(log(0.5)))


@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 30))
def test_a_divergence_is_never_negative(seed, spread):
    one, other = (distributions.log_softmax(rows(5, seed + n, spread)) for n in range(2))
    assert (distributions.divergence(one, other) >= 0).all()
    assert (distributions.divergence(one, one) == 0).all()


def test_scores_of_any_size_become_probabilities():
    found = distributions.log_softmax(np.float32([[1e30, 0], [-1e30, -1e30]]))
    assert np.exp(found).tolist() == [[1, 0], [0.5, 0.5]]


@pytest.mark.parametrize("at_once", [1, WIDTH, 7 * WIDTH])
def test_a_long_text_is_compared_in_parts_of_any_size(monkeypatch, at_once):
    whole = divergence.compared(rows(), rows(seed=1), range(30))
    monkeypatch.setattr(divergence, "AT_ONCE", at_once)
    parts = divergence.compared(rows(), rows(seed=1), range(30))
    for one, other in zip(whole, parts, strict=True):
        assert one.tolist() == other.tolist()


def test_means_have_their_standard_errors():
    verdict = compared(rows(seed=1), rows())
    kl = divergence.compared(rows(), rows(seed=1), [n % WIDTH for n in range(30)]).kl
    assert verdict.measured["kl_mean"] == pytest.approx(kl.mean())
    assert verdict.measured["kl_mean_error"] == pytest.approx(kl.std(ddof=1) / sqrt(30))
    assert verdict.measured["kl_p99"] == pytest.approx(np.percentile(kl, 99))


def test_the_error_of_the_ratio_is_that_of_the_two_losses_less_what_they_share():
    tokens = [n % WIDTH for n in range(30)]
    verdict, found = compared(rows(seed=1), rows()), divergence.compared(rows(), rows(seed=1), tokens)
    covariance = np.cov(-found.ours, -found.theirs) / 30
    error = sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    ratio = exp((found.theirs - found.ours).mean())
    assert verdict.measured["perplexity_ratio"] == pytest.approx(ratio)
    assert verdict.measured["perplexity_ratio_error"] == pytest.approx(ratio * error)


def test_what_is_hard_about_a_text_is_no_uncertainty_of_the_ratio():
    # The artifact gives every token half the probability that the float32 model gives it.
    theirs = np.log(np.float32([[p, 1 - p, 1e-9] for p in (0.9, 0.3, 0.05, 0.6)]))
    ours = np.log(np.float32([[p / 2, 1 - p, p / 2] for p in (0.9, 0.3, 0.05, 0.6)]))
    measured = divergence.measured(divergence.compared(theirs, ours, [0] * 4))
    assert measured["perplexity_ratio"] == pytest.approx(2, rel=1e-6)
    assert measured["perplexity_ratio_error"] < 1e-6
    assert measured["perplexity_error"] > 1


def test_a_perplexity_beyond_all_numbers_is_told_as_none():
    verdict = compared(rows() * 1000, rows() * 1000)
    assert verdict.outcome == "passed"
    assert verdict.measured["perplexity"] is None
    json.dumps(asdict(verdict), allow_nan=False)


def test_another_token_at_the_top_is_counted():
    theirs = rows()
    ours = theirs.copy()
    for row in ours[:3]:
        row[row.argmin()] = row.max() + 0.01
    verdict = compared(ours, theirs, kl_mean=9.0)
    assert verdict.measured["same_top"] == pytest.approx(27 / 30)
    assert verdict.outcome == "passed"
    assert compared(ours, theirs, kl_mean=9.0, same_top=0.91).sentence == "same_top 0.9 is below 0.91"


def test_scores_of_another_model_fail_by_both_limits():
    verdict = compared(rows(seed=1), rows())
    assert verdict.outcome == "failed"
    assert "kl_mean" in verdict.sentence
    assert "same_top" in verdict.sentence


def test_the_worst_five_tokens_are_told_worst_first():
    theirs = [rows(6, seed) for seed in range(3)]
    ours = [one.copy() for one in theirs]
    ours[1][4] = -ours[1][4]
    ours[2][2] = -ours[2][2] / 2
    worst = compared(ours, theirs, kl_mean=99.0, same_top=0.0).worst
    assert len(worst) == 5
    assert [(one["id"], one["token"], one["of"]) for one in worst[:2]] == [("t001", 5, 6), ("t002", 3, 6)]
    assert worst[0]["kl"] > worst[1]["kl"] > worst[2]["kl"] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_fails_and_its_text_is_named(value):
    ours = [rows(), rows()]
    ours[1][7, 3] = value
    verdict = compared(ours, [rows(), rows()])
    assert (verdict.outcome, verdict.sentence) == ("failed", "a score along text t001 is not finite")


def test_another_vocabulary_fails():
    verdict = compared(rows()[:, :30], rows())
    assert verdict.outcome == "failed"
    assert verdict.sentence.endswith("have the shape [30, 30], those of the float32 model [30, 40]")


def test_a_float32_model_that_is_not_finite_is_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="the float32 model's own scores are not finite"):
        compared(rows(), rows() * np.float32(np.nan))


def test_texts_in_which_nothing_follows_are_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="has a token that follows another"):
        compared([rows(0)] * 3, [rows(0)] * 3)


def test_a_text_of_one_token_does_not_count():
    subject = writing(Writer(), Writer(), "a", "abc")
    assert divergence.check(subject, divergence.Options()).measured["tokens"] == 2


def test_as_many_texts_are_read_as_the_profile_says_from_the_shortest_to_the_longest():
    lines = ["x" * n for n in range(1, 60)]
    verdict = divergence.check(writing(Writer(), Writer(), *lines, examples=3), divergence.Options())
    assert verdict.measured["tokens"] == 0 + 29 + 58


def test_the_scores_of_one_text_are_in_memory_and_no_others():
    alive: list[weakref.ref[Any]] = []

    def made() -> Any:
        # The float32 model's of the same text, when it is the artifact's turn.
        assert sum(ref() is not None for ref in alive) == len(alive) % 2
        scores = rows()
        alive.append(weakref.ref(scores))
        return scores

    lazy = Scored(*[rows()] * 6)
    lazy.scores = lambda written: (made() for _ in written)  # type: ignore[method-assign]
    subject = fake(corpus=texts(*"abcdef"), open=lambda which, threads=None: lazy, examples=6)
    assert divergence.check(subject, divergence.Options()).outcome == "passed"
    assert len(alive) == 12


def test_a_verdict_is_json():
    for verdict in (compared(rows(), rows()), compared(rows(seed=1), rows()), compared(rows() * np.nan, rows())):
        json.dumps(asdict(verdict), allow_nan=False)


def test_a_model_that_always_prefers_another_byte_fails():
    verdict = divergence.check(writing(Writer(lambda ids: np.roll(chance(ids), 1)), Writer()), divergence.Options())
    assert verdict.outcome == "failed"


# On models that have learned something


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tmp_path_factory.getbasetemp()


def verdict_of(subject: Subject) -> Verdict:
    """With the limits that its manifest declares."""
    return divergence.check(subject, subject.variant.limits.get("divergence", divergence.Options()))


@pytest.mark.parametrize("variant", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("name", [*writers.BOTH, "llama-files"])
def test_every_variant_of_a_learned_model_keeps_what_its_manifest_promises(base, name, variant):
    verdict = verdict_of(writers.learned(base, name, variant, 24))
    assert verdict.outcome == "passed", verdict.sentence
    assert verdict.measured["tokens"] > 100
    if variant == "fp32":
        assert verdict.measured["kl_mean"] == 0


FAULTS: dict[str, Fault] = {
    "a matrix is transposed": lambda subject: in_matrix(OUTPUTS[subject.manifest.name], np.transpose)(subject),
    "a matrix is all zeros": lambda subject: in_matrix(OUTPUTS[subject.manifest.name], np.zeros_like)(subject),
    "rows of the vocabulary are off by one": lambda subject: in_matrix(
        TABLES[subject.manifest.name], lambda table: np.roll(table, 1, 0)
    )(subject),
    "two words of the vocabulary are swapped": lambda subject: in_matrix(
        TABLES[subject.manifest.name], swapped(300, 301)
    )(subject),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", writers.BOTH)
def test_an_artifact_with_a_fault_in_it_fails(base, tmp_path, name, fault):
    subject = writers.learned(base, name, examples=24)
    assert verdict_of(writers.spoiled(subject, tmp_path / "spoiled", FAULTS[fault])).outcome == "failed"
