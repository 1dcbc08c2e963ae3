"""Parity: near vectors pass; every way to point elsewhere fails. It is never skipped: where there are texts, there are
vectors. What cannot run: a float32 model that gives no numbers, an empty corpus."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from modelkit import distances
from modelkit.checks import parity
from modelkit.errors import CheckError
from modelkit.vocabulary import Verdict
from subjects import compared, good, texts


def vectors(rows: int = 40, width: int = 16, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(rows, width))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def verdict_of(ours, theirs, **limits) -> Verdict:
    return parity.check(compared(ours, theirs), parity.Options(**limits))


def test_a_good_artifact_passes(tmp_path_factory):
    assert parity.check(good(tmp_path_factory.getbasetemp()), parity.Options()).outcome == "passed"


def test_another_models_vectors_fail(tmp_path_factory):
    subject = good(tmp_path_factory.getbasetemp())
    theirs = subject.outputs(subject.reference)
    ours = vectors(*theirs.shape)
    swapped = replace(subject, outputs=lambda artifact: ours if artifact is subject.artifact else theirs)
    assert parity.check(swapped, parity.Options()).outcome == "failed"


def test_identical_vectors_have_cosine_one():
    verdict = verdict_of(vectors(), vectors())
    assert verdict.outcome == "passed"
    assert verdict.measured == {name: pytest.approx(1, abs=1e-9) for name in verdict.measured}


def test_length_does_not_matter():
    assert verdict_of(3 * vectors(), vectors()).measured["cosine_min"] == pytest.approx(1)


def test_vectors_rotated_together_fail():
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
    verdict = verdict_of(vectors() @ rotation, vectors())
    assert verdict.outcome == "failed"


def test_permuted_rows_fail():
    verdict = verdict_of(np.roll(vectors(), 1, axis=0), vectors())
    assert verdict.outcome == "failed"
    assert verdict.measured["cosine_mean"] < 0.5


def test_negated_vectors_fail_with_cosine_minus_one():
    assert verdict_of(-vectors(), vectors()).measured["cosine_mean"] == pytest.approx(-1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_fails_and_its_text_is_named(value):
    ours = vectors()
    ours[7, 3] = value
    verdict = verdict_of(ours, vectors())
    assert verdict.outcome == "failed"
    assert verdict.sentence == "the vector of text t007 is not finite (1 such texts)"


def test_zero_vectors_have_cosine_zero_and_fail():
    verdict = verdict_of(np.zeros((40, 16)), vectors())
    assert verdict.outcome == "failed"
    assert verdict.measured["cosine_mean"] == 0


def test_one_wrong_text_fails_and_leads_the_worst():
    ours = vectors()
    ours[23] = -ours[23]
    verdict = verdict_of(ours, vectors())
    assert verdict.outcome == "failed"
    assert verdict.measured["cosine_min"] == pytest.approx(-1)
    assert verdict.worst[0] == {"id": "t023", "group": "tiny", "cosine": -1.0, "text": "text 23"}


def test_the_worst_texts_are_listed_worst_first():
    ours = vectors() + np.random.default_rng(3).normal(0, 0.05, (40, 16))
    found = [row["cosine"] for row in verdict_of(ours, vectors()).worst]
    assert len(found) == parity.WORST
    assert found == sorted(found)


def test_a_long_text_is_cut_in_the_worst():
    corpus = texts("a" * 500, "b")
    verdict = parity.check(compared(vectors(2), vectors(2), corpus), parity.Options())
    assert max(len(row["text"]) for row in verdict.worst) == 80


def test_the_percentile_is_numpys_linear_one():
    ours = vectors() + np.random.default_rng(3).normal(0, 0.05, (40, 16))
    cosine = 1 - distances.of_vectors(*(np.asarray(each, np.float32).astype(float) for each in (ours, vectors())))
    expected = np.percentile(cosine, 1, method="linear")
    assert verdict_of(ours, vectors()).measured["cosine_p1"] == pytest.approx(expected)


def test_one_text_is_a_corpus():
    assert verdict_of(vectors(1), vectors(1)).outcome == "passed"


def test_an_empty_corpus_is_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="the corpus is empty"):
        verdict_of(np.empty((0, 16)), np.empty((0, 16)))


def test_a_reference_that_is_not_finite_is_an_error_and_no_verdict():
    theirs = vectors()
    theirs[0, 0] = np.inf
    with pytest.raises(CheckError, match="the float32 model's own vectors are not finite"):
        verdict_of(vectors(), theirs)


@pytest.mark.parametrize("shape", [(40, 8), (39, 16), (40, 1)])
def test_vectors_of_another_shape_fail(shape):
    verdict = verdict_of(vectors(*shape), vectors())
    assert verdict.outcome == "failed"
    assert verdict.sentence == f"the vectors have the shape {list(shape)}, those of the float32 model [40, 16]"


@pytest.mark.parametrize("limit", ["cosine_mean", "cosine_p1", "cosine_min"])
def test_each_limit_can_fail_alone(limit):
    ours = vectors() + np.random.default_rng(3).normal(0, 0.02, (40, 16))
    loose = dict.fromkeys(asdict(parity.Options()), -1.0)
    verdict = verdict_of(ours, vectors(), **{**loose, limit: 0.999999})
    assert verdict.outcome == "failed"
    assert verdict.sentence.split()[0] == limit
    assert ";" not in verdict.sentence


def test_the_verdict_is_strict_json():
    ours = vectors()
    ours[0] = np.nan
    for verdict in (verdict_of(vectors(), vectors()), verdict_of(ours, vectors())):
        json.dumps(asdict(verdict), allow_nan=False)
