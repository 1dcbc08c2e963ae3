"""Distances: zero for the same, as the textbook has it in between, and never lost in rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkit import distances
from modelkit.checks.invariance import Options
from subjects import fake

BOTH = [distances.of_vectors, distances.of_logits]
rows = hnp.arrays(np.float32, (3, 5), elements=st.floats(-1e3, 1e3, width=32))


@pytest.mark.parametrize("distance", BOTH)
@given(same=rows)
def test_the_same_rows_have_no_distance(distance, same):
    found = distance(same, same)
    zero = ~same.any(1) if distance is distances.of_vectors else np.zeros(3, bool)
    assert found[~zero].tolist() == [0] * int((~zero).sum())


@pytest.mark.parametrize("distance", BOTH)
@given(one=rows, other=rows)
def test_a_distance_has_no_direction_and_stays_between_0_and_2(distance, one, other):
    found = distance(one, other)
    assert found.tolist() == distance(other, one).tolist()
    assert ((found >= 0) & (found <= 2 + 1e-12)).all()


@given(angle=st.floats(1e-7, 3.1))
def test_a_distance_of_vectors_is_one_minus_their_cosine_however_small(angle):
    ours, theirs = np.array([[3.0, 0.0]]), np.array([[np.cos(angle), np.sin(angle)]]) * 7
    assert distances.of_vectors(ours, theirs)[0] == pytest.approx(2 * np.sin(angle / 2) ** 2, rel=1e-6)


def test_zero_vectors_are_far_from_everything():
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert [distances.of_vectors(*pair)[0] for pair in ((zero, zero), (zero, one), (one, zero))] == [1, 1, 1]


@given(offset=st.floats(-100, 100))
def test_softmax_does_not_see_an_offset_and_neither_does_a_distance_of_logits(offset):
    ours = np.array([[1.0, 2.0, 4.0]])
    assert distances.of_logits(ours, ours + offset)[0] == pytest.approx(0, abs=1e-12)
    assert distances.of_logits(ours, ours[:, ::-1])[0] > 1


def test_constant_logits_are_like_one_another_and_unlike_the_rest():
    flat, steep = np.ones((1, 3)), np.arange(3.0)[None]
    assert [distances.of_logits(*pair)[0] for pair in ((flat, flat + 1), (flat, steep), (steep, flat))] == [0, 1, 1]


@pytest.mark.parametrize("distance", BOTH)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_infinitely_far_and_no_other_is(distance, value):
    ours = np.array([[1.0, 2.0], [1.0, value]])
    theirs = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert distance(ours, theirs).tolist() == distance(theirs, ours).tolist() == [0, np.inf]


@pytest.mark.parametrize(
    ("task", "distance", "held"),
    [
        ("feature-extraction", distances.of_vectors, "batch_cosine_min"),
        ("image-feature-extraction", distances.of_vectors, "batch_cosine_min"),
        ("zero-shot-classification", distances.of_logits, "batch_logits_min"),
        ("text-generation", distances.of_logits, "batch_logits_min"),
        ("text2text-generation", distances.of_logits, "batch_logits_min"),
    ],
)
def test_a_task_is_held_against_the_limit_of_what_it_gives(task, distance, held):
    assert distances.of_task(fake(task=task).manifest) is distance
    measured, limits = distances.figures(distance, 0.25, Options(batch_cosine_min=0.5, batch_logits_min=0.5))
    assert measured == {held: 0.75, "one_minus_cosine": 0.25}
    assert [name for name, limit in vars(limits).items() if limit is not None] == [held]
