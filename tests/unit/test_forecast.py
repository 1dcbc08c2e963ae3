"""How large a model will be is known before anything is quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import small_models
import stand_ins
from modelkit import kinds
from modelkit.errors import StageError
from modelkit.graphs import DATA, MODEL
from modelkit.stages import quantize
from modelkit.vocabulary import Choice

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {kind: (kind, {}) for kind in kinds.names("schemes")} | {
    "16-bit activations": ("w8a8-per-token", {"activations_16bit": ("*.value.weight",)}),
    "calibrated": ("w8a8-per-token", {"smoothing": 0.5, "rounding": "gptq"}),
    "calibrated in 4 bits": ("w4a8-per-token", {"smoothing": 0.5, "rounding": "gptq"}),
    "8-bit exceptions": ("w4a8-per-token", {"weights_8bit": ("*.dense.weight",)}),
    "large blocks": ("w4a8-per-token", {"block": 32}),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in of eight megabytes, most of them its table, as most of a small encoder's are."""
    folder = tmp_path_factory.mktemp("forecast")
    return small_models.exported(stand_ins.bert(folder / "source", vocab_size=60_000), folder / "made")


def forecast(kind: str, options: dict[str, Any], converted: Path) -> int:
    chosen = kinds.load("schemes", kind).Options(**{**small_models.FOR_NARROW_MODELS.get(kind, {}), **options})
    return quantize.forecast(Choice(kind, chosen), converted)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_forecast_is_within_two_per_cent(recipe: str, converted: Path, tmp_path: Path) -> None:
    kind, options = RECIPES[recipe]
    made = small_models.finished(
        small_models.quantized(converted, tmp_path / "made", kind, **options), tmp_path / "finished"
    )
    assert forecast(kind, options, converted) == pytest.approx(made.stat().st_size, rel=0.02)


def test_a_forecast_writes_nothing(converted: Path) -> None:
    before = small_models.digests(converted)
    forecast("w4a8-per-token", {}, converted)
    assert small_models.digests(converted) == before
    assert not Path("nowhere").exists()


def test_a_larger_table_adds_its_codes_blocks_and_scales(tmp_path: Path) -> None:
    one, two = (
        small_models.exported(stand_ins.bert(tmp_path / f"s{size}", vocab_size=size), tmp_path / f"m{size}")
        for size in (8_000, 16_000)
    )
    # Four bits a value, and a byte of zero point and step for 32 of them; a scale of two bytes a row.
    assert forecast("w4a8-per-token", {}, two) - forecast("w4a8-per-token", {}, one) == pytest.approx(
        8_000 * (32 / 2 + 32 / 32 + 2), rel=0.001
    )


def test_what_the_scheme_refuses_has_no_forecast(converted: Path) -> None:
    with pytest.raises(StageError, match="names no weight matrix"):
        forecast("w8a8-per-token", {"activations_16bit": ("nothing",)}, converted)


def test_a_model_is_as_large_as_its_files_where_nothing_is_quantized(converted: Path) -> None:
    files = sum((converted / name).stat().st_size for name in (MODEL, DATA))
    assert forecast("fp32", {}, converted) == files
