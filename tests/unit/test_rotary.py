"""graphs/rotary.py: angles against the papers' formulas in float64, and what turning keeps."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

import small_models
from modelkit import runtime
from modelkit.graphs import files, rotary
from modelkit.graphs.tape import Drawn, Tape, model_of, output, typed

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config(theta: float = 10000.0, scaling: dict[str, Any] | None = None) -> SimpleNamespace:
    return SimpleNamespace(rope_theta=theta, rope_scaling=scaling, rope_parameters=None)


def plain(theta: float, size: int) -> np.ndarray:
    return theta ** (-2 * np.arange(size // 2) / size)


@given(theta=st.floats(100, 1e7), size=st.integers(1, 128).map(lambda half: 2 * half))
def test_frequencies_fall_from_one_by_powers_of_theta(theta: float, size: int) -> None:
    np.testing.assert_allclose(rotary.frequencies(config(theta), size), plain(theta, size), rtol=3e-6)


@given(
    theta=st.floats(100, 1e7),
    factor=st.floats(1, 64),
    low=st.floats(0.5, 2),
    more=st.floats(0.5, 8),
    trained=st.integers(64, 16384),
)
def test_llama3_slows_down_only_waves_longer_than_the_trained_context(
    theta: float, factor: float, low: float, more: float, trained: int
) -> None:
    scaling = {**LLAMA3, "factor": factor, "low_freq_factor": low, "high_freq_factor": low + more}
    made = rotary.frequencies(config(theta, {**scaling, "original_max_position_embeddings": trained}), 64)
    for found, frequency in zip(made, plain(theta, 64), strict=True):
        turns = trained * frequency / (2 * math.pi)
        share = min(max((turns - low) / more, 0), 1)
        np.testing.assert_allclose(found, share * frequency + (1 - share) * frequency / factor, rtol=1e-4)


def test_the_fastest_and_the_slowest_pair_of_llama_3_2_are_known() -> None:
    made, usual = (rotary.frequencies(config(500000.0, scaling), 64) for scaling in (LLAMA3, None))
    assert made[0] == usual[0] == 1
    np.testing.assert_allclose(made[-1], usual[-1] / 32, rtol=1e-6)


class Turner:
    """A graph that turns vectors by their positions."""

    def __init__(self, size: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tensors = files.TensorFile(Path(folder))
            tape = Tape(tensors)
            x, positions = typed("x", "float32", ["b", 1, "s", size]), typed("positions", "int64", ["b", "s"])
            by = rotary.rotation(tape, positions, rotary.frequencies(config(), size))
            y: ir.Value = output(rotary.turned(tape, "x", x, by, size), "y", ["b", 1, "s", size])
            files.save(model_of(tape, "turner", Drawn([x, positions], [y])), tensors)
            self.session = runtime.Session(Path(folder) / "model.onnx", 1)

    def __call__(self, x: np.ndarray, positions: list[int]) -> np.ndarray:
        """float32[n, size] and n positions -> float32[n, size]."""
        feed = {"x": x[None, None].astype(np.float32), "positions": np.array([positions])}
        return self.session.run(feed)[0][0, 0]


TURNER = Turner(8)
places = st.integers(0, 4000)


def vectors(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (2, 8))


@settings(deadline=None)
@given(seed=st.integers(0, 999), place=places)
def test_pairs_are_turned_by_their_angle(seed: int, place: int) -> None:
    x = vectors(seed)[:1]
    complex_x = (x[:, :4] + 1j * x[:, 4:]) * np.exp(1j * place * plain(10000.0, 8))
    expected = np.concatenate([complex_x.real, complex_x.imag], -1)
    np.testing.assert_allclose(TURNER(x, [place]), expected, atol=2e-3)


@settings(deadline=None)
@given(seed=st.integers(0, 999), one=places, other=places, shift=st.integers(0, 90))
def test_a_product_depends_on_the_distance_alone(seed: int, one: int, other: int, shift: int) -> None:
    x = vectors(seed)
    here, there = TURNER(x, [one, other]), TURNER(x, [one + shift, other + shift])
    np.testing.assert_allclose(here[0] @ here[1], there[0] @ there[1], atol=1e-2)


@settings(deadline=None)
@given(seed=st.integers(0, 999), place=places)
def test_turning_keeps_lengths(seed: int, place: int) -> None:
    x = vectors(seed)
    np.testing.assert_allclose(small_models.cosines(TURNER(x, [0, 0]), x), 1, atol=1e-6)
    lengths = np.linalg.norm(TURNER(x, [place, place]), axis=-1)
    np.testing.assert_allclose(lengths, np.linalg.norm(x, axis=-1), rtol=1e-5)
