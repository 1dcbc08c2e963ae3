"""graphs/gptq.py: rounding so that the weights that follow make up for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.graphs import integers
from modelkit.graphs.gptq import Rounding
from modelkit.graphs.integers import LARGEST_PAIR


def reads(random: np.random.Generator, tokens: int, inner: int, hidden: int) -> np.ndarray:
    """Activations whose inputs go together: `hidden` causes, and a little of their own."""
    causes = random.normal(0, 1, (tokens, hidden)) @ random.normal(0, 1, (hidden, inner))
    return causes + 0.1 * random.normal(0, 1, (tokens, inner))


def matrix(random: np.random.Generator, outer: int, inner: int) -> np.ndarray:
    return random.normal(0, 1, (outer, inner)).astype(np.float32)


def error8(rounding: object, read: np.ndarray, weights: np.ndarray) -> float:
    codes, scales = rounding.to_int8(weights, paired=True)
    return float(np.square(read @ (codes * scales[:, None] - weights).T).sum())


def error4(rounding: object, read: np.ndarray, weights: np.ndarray, block: int) -> float:
    packed = rounding.to_int4(weights, block, paired=True)
    return float(np.square(read @ (packed.integers() * packed.scales[:, None] - weights).T).sum())


@given(seed=st.integers(0, 2**32 - 1), hidden=st.integers(1, 8))
def test_products_with_what_was_read_move_less_than_by_rounding_to_nearest(seed, hidden):
    random = np.random.default_rng(seed)
    read, weights = reads(random, 200, 32, hidden), matrix(random, 24, 32)
    assert error8(Rounding.on(read), read, weights) < 0.7 * error8(integers, read, weights)
    assert error4(Rounding.on(read), read, weights, 16) < 0.7 * error4(integers, read, weights, 16)


def test_inputs_that_have_nothing_to_do_with_one_another_are_rounded_to_nearest():
    random = np.random.default_rng(0)
    weights = matrix(random, 24, 32)
    codes, scales = Rounding.on(np.eye(32)).to_int8(weights, paired=False)
    nearest, same = integers.to_int8(weights, paired=False)
    assert np.array_equal(codes, nearest)
    assert np.array_equal(scales, same)


@given(
    seed=st.integers(0, 2**32 - 1),
    inner=st.sampled_from([16, 48, 80]),
    tokens=st.integers(0, 40),
    loud=st.sampled_from([1.0, 1e4]),
)
def test_codes_and_pairs_of_them_stay_within_what_the_kernel_adds(seed, inner, tokens, loud):
    random = np.random.default_rng(seed)
    read = random.normal(0, 1, (tokens, inner))
    read[:, ::5] *= loud
    weights = matrix(random, 5, inner)
    weights[:, 1::3] *= 20
    codes, _ = Rounding.on(read).to_int8(weights, paired=True)
    assert codes.min() >= -127
    packed = Rounding.on(read).to_int4(weights, 16, paired=True)
    assert packed.codes.max() <= 15
    for made in (codes, packed.integers()):
        pairs = made.astype(int).reshape(len(made), -1, 2)
        assert np.where(pairs > 0, pairs, 0).sum(-1).max() <= LARGEST_PAIR
        assert np.where(pairs < 0, -pairs, 0).sum(-1).max() <= LARGEST_PAIR


def test_an_odd_number_of_inputs_has_a_last_one_without_a_neighbour():
    random = np.random.default_rng(1)
    codes, _ = Rounding.on(random.normal(0, 1, (9, 7))).to_int8(matrix(random, 3, 7), paired=True)
    assert codes.shape == (3, 7)


def test_blocks_keep_the_zero_points_steps_and_scales_of_rounding_to_nearest():
    random = np.random.default_rng(2)
    weights = matrix(random, 6, 64)
    packed, nearest = (
        each.to_int4(weights, 32, paired=True) for each in (Rounding.on(reads(random, 90, 64, 3)), integers)
    )
    for name in ("zeros", "steps", "scales"):
        assert np.array_equal(getattr(packed, name), getattr(nearest, name)), name
    assert not np.array_equal(packed.codes, nearest.codes)


@given(seed=st.integers(0, 2**32 - 1))
def test_sums_that_end_in_other_digits_round_the_same(seed):
    random = np.random.default_rng(seed)
    read, weights = reads(random, 120, 32, 4), matrix(random, 16, 32)
    other = random.permutation(read) * (1 + random.uniform(-1, 1, read.shape) * 1e-14)
    one, two = (Rounding.on(each).to_int8(weights, paired=True)[0] for each in (read, other))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("read", [np.zeros((4, 16)), np.zeros((0, 16))])
def test_inputs_that_were_never_excited_are_rounded_to_nearest(read):
    weights = matrix(np.random.default_rng(3), 4, 16)
    assert np.array_equal(
        Rounding.on(read).to_int8(weights, paired=False)[0], integers.to_int8(weights, paired=False)[0]
    )
