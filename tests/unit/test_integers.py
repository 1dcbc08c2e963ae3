"""graphs/integers.py: rounding weights to 8 and 4 bits."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.graphs import integers
from modelkit.graphs.integers import LARGEST, LARGEST_PAIR, SMALLEST_SCALE, Int4, to_int4, to_int8

BLOCKS = (16, 32, 64)
HALF_SUBNORMAL = SMALLEST_SCALE / 2
"""What rounding a tiny scale to float16 can cost."""


def magnitudes(smallest: float, largest: float) -> st.SearchStrategy[float]:
    """Evenly over the powers of ten."""
    return st.floats(float(np.log10(smallest)), float(np.log10(largest))).map(lambda power: 10.0**power)


@st.composite
def weights(
    draw: st.DrawFn, width: int | None = None, smallest: float = 1e-3, largest: float = LARGEST / 10
) -> np.ndarray:
    """Rows as matrices have them: centred or not, with outliers, of one sign, constant, mostly zero."""
    rows, width = draw(st.integers(1, 6)), width or draw(st.integers(1, 80))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "shifted", "outliers", "one sign", "constant", "sparse", "lopsided"]))
    made = random.normal(0, 1, (rows, width))
    if kind == "shifted":
        made += 3
    elif kind == "outliers":
        made[:, :: max(1, width // 3)] *= 50
    elif kind == "one sign":
        made = -np.abs(made)
    elif kind == "constant":
        made = np.repeat(made[:, :1], width, 1)
    elif kind == "sparse":
        made *= random.random(made.shape) < 0.2
    elif kind == "lopsided":
        made = np.exp(2 * made)
    largest_now = np.abs(made).max() or 1.0
    return (made / largest_now * draw(magnitudes(smallest, largest))).astype(np.float32)


def restored(packed: Int4) -> np.ndarray:
    return packed.integers().astype(np.float32) * packed.scales[:, None]


def same(one: Int4, other: Int4) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("codes", "zeros", "steps", "scales")
    )


def one_block(values: list[float]) -> Int4:
    return to_int4(np.array([values], np.float32), len(values), paired=False)


# Eight bits


@given(groups=weights(smallest=1e-9))
def test_int8_is_off_by_half_a_scale_at_most(groups: np.ndarray) -> None:
    codes, scales = to_int8(groups, paired=False)
    ideal = np.abs(groups).max(1) / 127
    # The largest value loses a little more where the scale was rounded down to what float16 holds.
    clipped = 127 * np.maximum(ideal * 2**-11, HALF_SUBNORMAL)
    error = np.abs(codes * scales[:, None].astype(np.float64) - groups)
    assert (error <= np.maximum(scales / 2, clipped)[:, None] * 1.001).all()


@given(groups=weights(smallest=1e-9))
def test_int8_codes_are_symmetric(groups: np.ndarray) -> None:
    codes, scales = to_int8(groups, paired=False)
    negative, same_scales = to_int8(-groups, paired=False)
    assert codes.min() >= -127
    np.testing.assert_array_equal(codes, -negative)
    np.testing.assert_array_equal(scales, same_scales)


@given(groups=weights(smallest=1e-9, largest=LARGEST))
def test_int8_scales_are_what_float16_stores(groups: np.ndarray) -> None:
    scales = to_int8(groups, paired=False)[1]
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))
    assert (scales > 0).all()


def test_int8_groups_do_not_know_of_each_other() -> None:
    groups = np.random.default_rng(0).normal(0, 1, (5, 33)).astype(np.float32)
    groups[2] *= 1000
    codes, scales = to_int8(groups, paired=False)
    for row in range(5):
        alone = to_int8(groups[row : row + 1], paired=False)
        np.testing.assert_array_equal(codes[row], alone[0][0])
        assert scales[row] == alone[1][0]


def test_int8_of_zeros_is_zero() -> None:
    codes, scales = to_int8(np.zeros((2, 8), np.float32), paired=False)
    assert not codes.any()
    np.testing.assert_array_equal(scales, np.float32(SMALLEST_SCALE))


def test_int8_uses_the_whole_range() -> None:
    codes, _ = to_int8(np.linspace(-1, 1, 255, dtype=np.float32)[None], paired=False)
    assert (codes.min(), codes.max()) == (-127, 127)


# Four bits


@given(data=st.data(), block=st.sampled_from(BLOCKS), blocks=st.integers(1, 4))
def test_int4_parts_are_within_their_bits(data: st.DataObject, block: int, blocks: int) -> None:
    packed = to_int4(data.draw(weights(block * blocks, smallest=1e-9, largest=LARGEST)), block, paired=False)
    assert packed.codes.max() <= 15
    assert packed.zeros.max() <= 15
    assert packed.steps.min() >= 1
    assert packed.steps.max() <= 15
    np.testing.assert_array_equal(packed.scales, packed.scales.astype(np.float16).astype(np.float32))
    assert (packed.scales > 0).all()


@given(data=st.data(), block=st.sampled_from(BLOCKS), blocks=st.integers(1, 4))
def test_int4_unpacks_to_int8_without_overflow(data: st.DataObject, block: int, blocks: int) -> None:
    packed = to_int4(data.draw(weights(block * blocks, smallest=1e-9, largest=LARGEST)), block, paired=False)
    steps, zeros = (np.repeat(part.astype(np.int64), block, 1) for part in (packed.steps, packed.zeros))
    exact = (packed.codes.astype(np.int64) - zeros) * steps
    assert np.abs(exact).max() <= 127
    np.testing.assert_array_equal(packed.integers(), exact)


@given(data=st.data(), block=st.sampled_from(BLOCKS), blocks=st.integers(1, 4))
def test_int4_is_off_by_about_one_sixteenth_of_a_blocks_range(data: st.DataObject, block: int, blocks: int) -> None:
    groups = data.draw(weights(block * blocks))
    packed = to_int4(groups, block, paired=False)
    error = (restored(packed).astype(np.float64) - groups).reshape(len(groups), -1, block)
    values = groups.reshape(error.shape).astype(np.float64)
    span = np.maximum(values.max(-1), 0) - np.minimum(values.min(-1), 0)
    # A block much narrower than its row's widest has the row's scale for its step.
    grain = np.maximum(span / 15, packed.scales[:, None])
    assert (np.sqrt((error**2).mean(-1)) <= grain).all()


@pytest.mark.parametrize("block", BLOCKS)
def test_small_blocks_are_closer_than_one_for_a_whole_row(block: int) -> None:
    groups = np.random.default_rng(0).normal(0, 1, (64, 4 * block)).astype(np.float32)
    fine, coarse = (
        float(np.square(restored(to_int4(groups, width, paired=False)) - groups).sum()) for width in (block, 4 * block)
    )
    assert fine < coarse


def test_int4_of_zeros_is_zero() -> None:
    assert not to_int4(np.zeros((3, 32), np.float32), 16, paired=False).integers().any()


def test_a_row_of_zeros_among_others_stays_zero() -> None:
    groups = np.random.default_rng(0).normal(0, 1, (3, 32)).astype(np.float32)
    groups[1] = 0
    assert not restored(to_int4(groups, 16, paired=False))[1].any()


def test_a_zero_weight_stays_exactly_zero() -> None:
    groups = np.random.default_rng(0).normal(2, 1, (3, 32)).astype(np.float32)
    groups[:, ::5] = 0
    assert not restored(to_int4(groups, 16, paired=False))[:, ::5].any()


@pytest.mark.parametrize("value", [1.0, -1.0, 0.3, -7e4, 2e-3])
def test_a_constant_block_is_kept_to_a_percent(value: float) -> None:
    found = restored(one_block([value] * 16))
    np.testing.assert_allclose(found, value, rtol=0.01)


@given(groups=weights(64))
def test_trying_nearby_steps_never_makes_a_block_worse(groups: np.ndarray) -> None:
    def errors(packed: Int4) -> np.ndarray:
        return np.square(restored(packed).astype(np.float64) - groups).reshape(len(groups), -1, 16).sum(-1)

    chosen = errors(to_int4(groups, 16, paired=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integers, "_better", lambda one, other: one)
        first = errors(to_int4(groups, 16, paired=False))
    assert (chosen <= first * (1 + 1e-4)).all()


# Pairs that an int16 holds


def largest_pair(found: np.ndarray) -> int:
    """Of two neighbours, what they have on one side of zero."""
    even = np.pad(found.astype(int), ((0, 0), (0, found.shape[1] % 2)))
    sides = (np.clip(side * even, 0, None).reshape(len(found), -1, 2).sum(-1).max() for side in (1, -1))
    return max(sides)


@given(groups=weights(smallest=1e-9, largest=LARGEST))
def test_int8_pairs_fit_an_int16_whatever_the_activation(groups: np.ndarray) -> None:
    codes, _ = to_int8(groups, paired=True)
    assert largest_pair(codes) <= LARGEST_PAIR


@given(data=st.data(), block=st.sampled_from(BLOCKS), blocks=st.integers(1, 4))
def test_int4_pairs_fit_an_int16_whatever_the_activation(data: st.DataObject, block: int, blocks: int) -> None:
    packed = to_int4(data.draw(weights(block * blocks, smallest=1e-9, largest=LARGEST)), block, paired=True)
    assert largest_pair(packed.integers()) <= LARGEST_PAIR
    assert np.abs(packed.integers()).max() <= 127


def test_the_largest_pair_is_the_largest_that_fits() -> None:
    assert 255 * LARGEST_PAIR <= np.iinfo(np.int16).max < 255 * (LARGEST_PAIR + 1)


@given(groups=weights(smallest=1e-9))
def test_paired_int8_is_off_by_half_a_scale_at_most(groups: np.ndarray) -> None:
    codes, scales = to_int8(groups, paired=True)
    error = np.abs(codes * scales[:, None].astype(np.float64) - groups)
    assert (error <= scales[:, None] / 2 * 1.001).all()


def test_bounding_pairs_costs_less_than_a_bit() -> None:
    groups = np.random.default_rng(0).normal(0, 1, (50, 384)).astype(np.float32)
    free, bound = (
        float(np.square(codes * scales[:, None] - groups).sum())
        for codes, scales in (to_int8(groups, paired=paired) for paired in (False, True))
    )
    assert free < bound < 2.2 * free
    free, bound = (
        float(np.square(restored(to_int4(groups, 16, paired=paired)) - groups).sum()) for paired in (False, True)
    )
    assert bound < 1.1 * free


# The same bytes, however it is cut


@given(rows=st.integers(1, 9), piece=st.sampled_from([1, 33, 64, 100, 200, 1 << 20]))
def test_the_size_of_a_piece_does_not_change_the_bytes(rows: int, piece: int) -> None:
    groups = np.random.default_rng(rows).normal(0, 1, (rows, 64)).astype(np.float32)
    whole = to_int4(groups, 16, paired=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integers, "PIECE", piece)
        assert same(to_int4(groups, 16, paired=False), whole)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_threads_does_not_change_the_bytes(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.random.default_rng(0).normal(0, 1, (40, 64)).astype(np.float32)
    monkeypatch.setattr(integers, "PIECE", 128)
    whole = to_int4(groups, 16, paired=False)
    monkeypatch.setattr(integers, "ThreadPoolExecutor", partial(ThreadPoolExecutor, max_workers=threads))
    assert same(to_int4(groups, 16, paired=False), whole)


def test_a_transposed_view_gives_the_bytes_of_its_copy() -> None:
    matrix = np.random.default_rng(0).normal(0, 1, (64, 40)).astype(np.float32)
    assert same(to_int4(matrix.T, 16, paired=False), to_int4(np.ascontiguousarray(matrix.T), 16, paired=False))
    for view, copy in zip(
        to_int8(matrix.T, paired=False), to_int8(np.ascontiguousarray(matrix.T), paired=False), strict=True
    ):
        np.testing.assert_array_equal(view, copy)


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import numpy as np, hashlib; from modelkit.graphs.integers import to_int4;"
        "p = to_int4(np.random.default_rng(0).normal(0, 1, (40, 64)).astype(np.float32), 16, paired=False);"
        "print(hashlib.sha256(p.codes.tobytes() + p.zeros.tobytes() + p.steps.tobytes()).hexdigest())"
    )

    def digest(**environment: Any) -> str:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        return done.stdout

    # numpy picks its kernels by processor; with the newest ones off the bytes must not move.
    plain = {"OPENBLAS_NUM_THREADS": "1"}
    assert digest(**plain) == digest(**plain, NPY_DISABLE_CPU_FEATURES="AVX512F AVX512CD AVX512_SKX AVX512_ICL")
