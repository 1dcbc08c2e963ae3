"""Invariance: a vector that depends on the batch fails, and the texts that show it stretch from short to long."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace

import numpy as np
import pytest

from modelkit.checks import invariance
from modelkit.vocabulary import Verdict
from subjects import embedding, fake, good, texts

CORPUS = texts(*("word " * (1 + n % 40) for n in range(100)))


def vectors(lines: list[str]) -> np.ndarray:
    """One vector per text, by its length alone."""
    angles = np.array([[len(line) / 100] for line in lines])
    return np.hstack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def verdict_of(embed, corpus=CORPUS, **limits) -> Verdict:
    return invariance.check(fake(corpus=corpus, open=embedding(embed)), invariance.Options(**limits))


def shifted(by: float):
    """Turns every vector by `by` radians when the text is not alone."""

    def embed(lines, batch_size=32):
        angle = 0 if batch_size == 1 else by
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return (vectors(lines) @ turn).astype(np.float32)

    return embed


def test_a_good_artifact_passes(tmp_path_factory):
    verdict = invariance.check(good(tmp_path_factory.getbasetemp()), invariance.Options())
    assert verdict.outcome == "passed"


def test_a_vector_that_does_not_depend_on_the_batch_passes():
    assert verdict_of(lambda lines, batch_size=32: vectors(lines)).measured["batch_cosine_min"] == pytest.approx(1)


def test_a_vector_that_depends_on_the_batch_fails():
    verdict = verdict_of(shifted(0.02))
    assert verdict.outcome == "failed"
    assert verdict.measured["batch_cosine_min"] == pytest.approx(np.cos(0.02), abs=1e-6)


def test_a_difference_within_the_limit_passes():
    assert verdict_of(shifted(0.01)).outcome == "passed"


def test_one_scale_for_a_whole_batch_fails_as_dynamic_quantization_does():
    # What DynamicQuantizeLinear does: the largest value of the batch sets the step for all.
    def embed(lines, batch_size=32):
        values = np.random.default_rng(0).normal(size=(len(lines), 64)) * np.array([[len(line)] for line in lines])
        step = np.abs(values).max() / 127 if batch_size > 1 else np.abs(values).max(1, keepdims=True) / 127
        return (np.round(values / step) * step).astype(np.float32)

    assert verdict_of(embed).outcome == "failed"


def test_one_text_that_depends_on_the_batch_is_enough_and_leads_the_worst():
    def embed(lines, batch_size=32):
        made = vectors(lines)
        if batch_size > 1:
            made[17] *= -1
        return made

    verdict = verdict_of(embed)
    assert verdict.outcome == "failed"
    assert verdict.measured["batch_cosine_min"] == pytest.approx(-1)
    assert verdict.worst[0] == {"id": invariance.spread(CORPUS)[17]["id"], "one_minus_cosine": pytest.approx(2)}


def test_a_real_model_whose_padding_leaks_fails(tmp_path_factory):
    subject = good(tmp_path_factory.getbasetemp())
    model = subject.open(subject.artifact)

    def embed(lines, batch_size=32):
        if batch_size == 1:
            return model.embed(lines, batch_size=1)
        longest = max(lines, key=lambda line: len(line.split()))
        return model.embed([f"{line} {' '.join(longest.split()[len(line.split()) :])}" for line in lines])

    corpus = texts("the cat", "a dog ran", "the bird flew on over the house and the river and the tree")
    leaking = replace(subject, corpus=corpus, open=embedding(embed))
    assert invariance.check(leaking, invariance.Options()).outcome == "failed"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 32])
def test_a_vector_that_is_not_finite_fails_and_its_text_is_named(value, size):
    def embed(lines, batch_size=32):
        made = vectors(lines)
        if batch_size == size:
            made[3, 1] = value
        return made

    verdict = verdict_of(embed)
    assert verdict.outcome == "failed"
    assert verdict.sentence == f"the vector of text {invariance.spread(CORPUS)[3]['id']} is not finite (1 such texts)"
    json.dumps(asdict(verdict), allow_nan=False)


def test_zero_vectors_fail():
    verdict = verdict_of(lambda lines, batch_size=32: np.zeros((len(lines), 4), np.float32))
    assert (verdict.outcome, verdict.measured) == ("failed", {"batch_cosine_min": 0.0})


def test_texts_are_embedded_one_by_one_and_all_at_once():
    sizes = []

    def embed(lines, batch_size=32):
        sizes.append((len(lines), batch_size))
        return vectors(lines)

    verdict_of(embed)
    assert sizes == [(32, 1), (32, 32)]


def test_the_spread_runs_from_the_shortest_text_to_the_longest():
    lengths = [len(row["text"]) for row in invariance.spread(CORPUS)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (5, 200)


def test_the_spread_has_thirty_two_different_texts():
    assert len({row["id"] for row in invariance.spread(CORPUS)}) == 32


@pytest.mark.parametrize("seed", range(3))
def test_the_spread_does_not_depend_on_the_order_of_the_corpus(seed):
    shuffled = random.Random(seed).sample(CORPUS, len(CORPUS))
    assert invariance.spread(shuffled) == invariance.spread(CORPUS)


@pytest.mark.parametrize("size", [1, 5, 31, 32, 33, 34])
def test_a_small_corpus_is_used_whole(size):
    assert len({row["id"] for row in invariance.spread(CORPUS[:size])}) == min(size, 32)
