"""Logits: rows that rank alike pass; every way to rank otherwise fails."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.checks import logits
from modelkit.errors import CheckError
from modelkit.vocabulary import Verdict
from subjects import compared, texts


def rows(count: int = 40, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)) * 3 + 5


def verdict_of(ours, theirs, **limits) -> Verdict:
    return logits.check(compared(ours, theirs), logits.Options(**limits))


@pytest.mark.parametrize("width", [2, 3, 11, 500])
def test_identical_logits_pass_with_one_everywhere(width):
    verdict = verdict_of(rows(width=width), rows(width=width))
    assert verdict.outcome == "passed"
    assert verdict.measured == {name: pytest.approx(1, abs=1e-9) for name in verdict.measured}


@given(shift=st.floats(-50, 50), scale=st.floats(0.1, 10))
def test_what_softmax_and_argmax_do_not_see_does_not_matter(shift, scale):
    verdict = verdict_of(rows() * scale + shift, rows())
    assert verdict.measured["cosine_min"] == pytest.approx(1, abs=1e-5)
    assert verdict.measured["same_top"] == 1


def test_a_common_offset_does_not_hide_other_answers():
    # Uncentred, two rows far from the origin always point the same way.
    verdict = verdict_of(rows(seed=1) + 1000, rows() + 1000)
    assert verdict.outcome == "failed"
    assert verdict.measured["cosine_mean"] < 0.5


def test_other_rows_of_the_same_model_fail():
    assert verdict_of(np.roll(rows(), 1, axis=0), rows()).outcome == "failed"


def test_swapped_answers_fail_by_the_largest():
    ours = rows(width=3)[:, [1, 0, 2]]
    verdict = verdict_of(ours, rows(width=3), cosine_mean=-1, cosine_min=-1, top10=0)
    assert verdict.sentence.startswith("same_top")


def test_one_other_answer_of_many_is_counted():
    ours = np.tile(np.arange(5.0), (40, 1))
    theirs = ours.copy()
    ours[17, [3, 4]] = ours[17, [4, 3]]
    verdict = verdict_of(ours, theirs)
    assert verdict.measured["same_top"] == pytest.approx(39 / 40)
    assert verdict.worst[0] == {
        "id": "t017", "group": "tiny", "cosine": pytest.approx(0.9), "same_top": False, "text": "text 17",
    }  # fmt: skip


@pytest.mark.parametrize(("width", "kept"), [(2, 1), (3, 2), (10, 9), (11, 10), (400, 10)])
def test_ten_largest_are_compared_or_all_but_the_smallest(width, kept):
    theirs = np.tile(np.arange(float(width)), (30, 1))
    ours = theirs.copy()
    # The last that counts changes places with the first that does not.
    ours[:, [-kept, -kept - 1]] = ours[:, [-kept - 1, -kept]]
    assert logits.overlap(ours, theirs) == pytest.approx(1 - 1 / kept)


def test_a_model_that_answers_everything_alike_fails():
    assert verdict_of(np.ones((40, 16)), rows()).outcome == "failed"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_fails_and_its_text_is_named(value):
    ours = rows()
    ours[7, 3] = value
    verdict = verdict_of(ours, rows())
    assert (verdict.outcome, verdict.sentence) == ("failed", "a logit of text t007 is not finite (1 such texts)")


def test_another_number_of_answers_fails():
    assert verdict_of(rows(width=3), rows(width=2)).sentence.startswith("the logits have the shape [40, 3]")


@pytest.mark.parametrize("theirs", [np.ones((0, 3)), np.ones((4, 1)), np.ones(4)])
def test_nothing_to_rank_is_an_error_and_no_verdict(theirs):
    with pytest.raises(CheckError, match="rank nothing"):
        verdict_of(theirs, theirs)


def test_a_reference_that_is_not_finite_is_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="the float32 model's own logits are not finite"):
        verdict_of(rows(), np.full((40, 16), np.nan))


def test_the_worst_five_are_listed_worst_first_and_cut():
    corpus = texts(*(f"{number} {'a' * 500}" for number in range(40)))
    ours = rows() + rows(seed=1) * 0.2
    found = logits.check(compared(ours, rows(), corpus), logits.Options()).worst
    assert len(found) == 5
    assert [row["cosine"] for row in found] == sorted(row["cosine"] for row in found)
    assert {len(row["text"]) for row in found} == {80}


def test_a_verdict_is_json():
    ours = rows()
    ours[0] = np.nan
    for verdict in (verdict_of(rows(), rows()), verdict_of(ours, rows())):
        json.dumps(asdict(verdict), allow_nan=False)
