"""Schemes that look at activations: smoothing and error-compensated rounding, from the graph to the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_models
import stand_ins
from modelkit import manifest, pipeline
from modelkit.errors import ManifestError, StageError
from modelkit.graphs import MODEL, files
from modelkit.graphs.calibrated import FURTHEST, Calibration
from modelkit.graphs.float64 import Activations
from modelkit.schemes import w4a8_per_token, w8a8_per_token
from modelkit.store import Store
from modelkit.vocabulary import Fetching
from small_models import Drawing

KINDS = ("w8a8-per-token", "w4a8-per-token")
LOUD = 5
"""The input that is much larger than all others."""


def loud(tokens: int = 40, inner: int = 32, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(0, 1, (1, tokens, inner)).astype(np.float32)
    made[..., LOUD] *= 60
    return made


def weights(inner: int = 32, outer: int = 24, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (inner, outer)).astype(np.float32)


def product(folder: Path, before: str = "Identity", *matrices: np.ndarray) -> Path:
    """The sum of `x` times each matrix, perhaps after an operator."""

    def draw(drawing: Drawing) -> Any:
        tape = drawing.tape
        x = tape.node("read", before, drawing.x)
        products = [tape.node(f"p{n}", "MatMul", x, tape.weight(f"w{n}", each)) for n, each in enumerate(matrices)]
        return tape.node("sum", "Sum", *products)

    return small_models.graph(folder, (1, "tokens", 32), draw, (1, "tokens", matrices[0].shape[1]))


def quantized(source: Path, into: Path, kind: str, x: np.ndarray, **options: Any) -> Path:
    module = {"w8a8-per-token": w8a8_per_token, "w4a8-per-token": w4a8_per_token}[kind]
    into.mkdir(parents=True)
    chosen = module.Options(**options)
    module.quantize(source, into, chosen, *([Activations(source / MODEL, [{"x": x}])] if chosen.calibrates else []))
    return into


def error(source: Path, made: Path, x: np.ndarray) -> float:
    one, other = (small_models.run(folder / MODEL, {"x": x})[0] for folder in (source, made))
    return float(np.square(one - other).sum())


def operators(folder: Path) -> list[str]:
    return [node.op_type for node in files.read_graph(folder / MODEL).graph.node]


# What a scheme makes of them


@pytest.mark.parametrize("kind", KINDS)
def test_a_loud_input_drowns_no_other_once_it_is_smoothed(kind: str, tmp_path: Path) -> None:
    source, x = product(tmp_path / "source", "Identity", weights()), loud(seed=2)
    plain, smooth = (
        error(source, quantized(source, tmp_path / name, kind, loud(), smoothing=share), x)
        for name, share in (("plain", 0.0), ("smooth", 0.5))
    )
    assert smooth < plain / 4


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_that_makes_up_for_itself_comes_nearer(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mix = random.normal(0, 1, (4, 32))
    seen, x = ((random.normal(0, 1, (1, 200, 4)) @ mix).astype(np.float32) for _ in range(2))
    source = product(tmp_path / "source", "Identity", weights())
    nearest, gptq = (
        error(source, quantized(source, tmp_path / how, kind, seen, rounding=how, activations_16bit=("*",)), x)
        for how in ("nearest", "gptq")
    )
    assert gptq < nearest / 2


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_that_read_one_value_share_its_smoothing(kind: str, tmp_path: Path) -> None:
    source = product(tmp_path / "source", "Identity", weights(), weights(seed=3))
    made = quantized(source, tmp_path / "made", kind, loud(), smoothing=0.5)
    names = [node.output[0] for node in files.read_graph(made / MODEL).graph.node]
    assert sum(name.endswith("/smoothed") for name in names) == 1
    assert operators(made).count("QuantizeLinear") == 1


@pytest.mark.parametrize("operator", ["Relu", "Gelu"])
def test_what_hardly_falls_below_zero_is_left_as_it_is(operator: str, tmp_path: Path) -> None:
    source = product(tmp_path / "source", operator, weights())
    plain, smooth = (
        quantized(source, tmp_path / str(share), "w8a8-per-token", loud(), smoothing=share) for share in (0.0, 0.5)
    )
    assert operators(plain) == operators(smooth)


def test_without_smoothing_and_with_rounding_to_nearest_no_activation_is_needed(tmp_path: Path) -> None:
    source = product(tmp_path / "source", "Identity", weights())
    made = quantized(source, tmp_path / "made", "w8a8-per-token", loud())
    assert not any("smooth" in node.output[0] for node in files.read_graph(made / MODEL).graph.node)


def test_a_part_that_no_text_reaches_is_refused(tmp_path: Path) -> None:
    source = product(tmp_path / "source", "Identity", weights())
    (tmp_path / "made").mkdir()
    with pytest.raises(StageError, match="no calibration text reaches 'read'; add some of the kind"):
        w8a8_per_token.quantize(
            source, tmp_path / "made", w8a8_per_token.Options(rounding="gptq"), Activations(source / MODEL, [])
        )


class Told:
    """Activations that are given."""

    def __init__(self, read: np.ndarray) -> None:
        self.read = read.astype(np.float64)

    def of(self, value: str) -> np.ndarray:
        return self.read


@given(seed=st.integers(0, 2**32 - 1), strength=st.floats(0.01, 1.0))
def test_multipliers_are_exact_in_float16_and_near_one_another(seed, strength):
    random = np.random.default_rng(seed)
    read = random.normal(0, 1, (20, 9)) * 10.0 ** random.integers(-40, 30, 9)
    found = Calibration(strength, activations=Told(read)).multipliers("x", [weights(9, 4, seed=seed % 1000)])
    assert found is not None
    assert np.array_equal(found.astype(np.float16).astype(np.float32), found)
    assert found.max() / np.median(found) <= FURTHEST * 1.01
    assert found.min() / np.median(found) >= 1 / FURTHEST / 1.01


def test_at_full_strength_all_inputs_become_equally_loud():
    read = np.random.default_rng(0).normal(0, 1, (50, 6)) * [1, 2, 4, 8, 3, 5]
    found = Calibration(1.0, activations=Told(read)).multipliers("x", [weights(6, 4)])
    peaks = np.abs(read * found).max(0)
    assert np.allclose(peaks, peaks[0], rtol=0.01)


# What a manifest says of them


def project(folder: Path, scheme: str) -> Path:
    path = stand_ins.project(folder)
    path.write_text(path.read_text().replace("scheme: w8a8-per-token", f"scheme: {scheme}"))
    return path


def built(path: Path, store: Path, variant: str = "int8") -> pipeline.Build:
    declared = manifest.load(path)
    prepared = pipeline.Pins(Store(store)).prepare(declared, declared.variants[variant], None, Fetching(path.parent))
    pipeline.build(prepared)
    return prepared


CALIBRATED = "{w8a8-per-token: {smoothing: 0.5, rounding: gptq}}"


@pytest.mark.parametrize("smoothing", [-0.1, 1.5])
def test_a_strength_beyond_its_range_is_told_at_its_line(smoothing: float, tmp_path: Path) -> None:
    path = project(tmp_path, f"{{w8a8-per-token: {{smoothing: {smoothing}}}}}")
    with pytest.raises(
        ManifestError, match=rf"tiny\.yaml:\d+:\d+: .*smoothing is a share from 0 to 1, not {smoothing}"
    ):
        manifest.load(path)


def test_an_unknown_rounding_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"tiny\.yaml:\d+:\d+: .*gptq"):
        manifest.load(project(tmp_path, "{w8a8-per-token: {rounding: awq}}"))


def texts(folder: Path, *more: str) -> None:
    place = folder / "conformance" / "corpora" / "calibration"
    place.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"ca-{n:04}", "text": text, "group": "a"} for n, text in enumerate([*stand_ins.WORDS[:20], *more])]
    (place / "feature-extraction.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_other_calibration_texts_make_another_artifact_of_the_same_float32_model(tmp_path: Path) -> None:
    one, two = (project(tmp_path / name, CALIBRATED) for name in ("one", "two"))
    texts(tmp_path / "one")
    texts(tmp_path / "two", "the cat sat under the tree", "a dog ran")
    one, two = (built(path, tmp_path / "store") for path in (one, two))
    assert one.artifact("converted").digest == two.artifact("converted").digest
    assert one.stage("quantized").key != two.stage("quantized").key
    assert one.artifact("quantized").digest != two.artifact("quantized").digest


def test_a_recipe_without_calibration_does_not_depend_on_its_texts(tmp_path: Path) -> None:
    one, two = (project(tmp_path / name, "w8a8-per-token") for name in ("one", "two"))
    texts(tmp_path / "one")
    texts(tmp_path / "two", "a dog ran")
    one, two = (built(path, tmp_path / "store").stage("quantized").key for path in (one, two))
    assert one == two


def test_the_texts_that_modelkit_ships_are_taken_where_a_project_has_none(tmp_path: Path) -> None:
    assert built(project(tmp_path, CALIBRATED), tmp_path / "store").artifact("quantized").files


def test_a_broken_line_among_the_texts_is_told_with_its_place(tmp_path: Path) -> None:
    texts(tmp_path)
    place = tmp_path / "conformance" / "corpora" / "calibration" / "feature-extraction.jsonl"
    place.write_text(place.read_text() + "nonsense\n")
    with pytest.raises(StageError, match=r"feature-extraction\.jsonl:21:1: is no row of a corpus"):
        built(project(tmp_path, CALIBRATED), tmp_path / "store")
