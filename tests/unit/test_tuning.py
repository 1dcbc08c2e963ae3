"""The parts of a search for a recipe: what is open, how it is drawn, what is left of it, how it is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stand_ins
from modelkit import kinds, manifest
from modelkit.errors import ManifestError, StageError
from modelkit.schemes import w4a8_per_token, w8a8_per_token
from modelkit.tuning import pareto, written
from modelkit.tuning.search import Search, Trial, Wanted
from modelkit.tuning.space import Space, grouped, products, tunable
from modelkit.vocabulary import Choice

GROUPS = ("layer.*.value.weight", "layer.*.query.weight")
SPACE = Space(("w4a8-per-token", "w8a8-per-token"), GROUPS)
PLAIN = Choice("w8a8-per-token", w8a8_per_token.Options())


# What is open


@pytest.mark.parametrize(
    ("scheme", "open_"), [("w8a8-per-token", True), ("w4a8-per-token", True), ("fp32", False), ("int8-dynamic", False)]
)
def test_schemes_that_forecast_their_size_can_be_searched(scheme: str, open_: bool) -> None:
    assert tunable(scheme) is open_


def test_a_matrix_of_all_layers_is_one_sort() -> None:
    names = ["layer.0.value.weight", "layer.11.value.weight", "shared.weight", "block.0.layer.1.wi_0.weight"]
    assert grouped(names) == {
        "layer.*.value.weight": names[:2],
        "shared.weight": ["shared.weight"],
        "block.*.layer.*.wi_0.weight": names[3:],
    }


def test_a_second_product_for_a_matrix_counts_by_its_weights() -> None:
    recipe = Choice("w8a8-per-token", w8a8_per_token.Options(activations_16bit=("*.value.weight",)))
    assert products(recipe, {"layer.0.value.weight": 10, "layer.0.query.weight": 30}) == 1.25
    assert products(PLAIN, {"layer.0.value.weight": 10}) == 1


def test_every_start_is_a_recipe_and_the_first_of_each_scheme_is_its_standard() -> None:
    found = [SPACE.read(one) for one in SPACE.starts(lambda recipe: 1)]
    assert len(set(map(str, found))) == len(found)
    for scheme in SPACE.schemes:
        assert next(one for one in found if one.kind == scheme).options == kinds.load("schemes", scheme).Options()


def test_a_start_that_does_not_fit_gets_the_blocks_that_leave_the_least_room() -> None:
    def size(recipe: Choice) -> int | None:
        options = recipe.options
        if recipe.kind != "w4a8-per-token":
            return None
        bytes_ = 1000 - 8 * options.block - options.table_block + 100 * len(options.weights_8bit)
        return bytes_ if bytes_ <= 850 else None

    fours = [one for start in SPACE.starts(size) if (one := SPACE.read(start)).kind == "w4a8-per-token"]
    assert {(one.options.block, one.options.table_block) for one in fours if not one.options.weights_8bit} == {(16, 64)}
    assert {(one.options.block, one.options.table_block) for one in fours if one.options.weights_8bit} == {(16, 128)}


def test_any_draw_is_a_recipe_and_many_draws_reach_every_option() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [SPACE.drawn(study.ask()) for _ in range(200)]
    fours = [one.options for one in found if one.kind == "w4a8-per-token"]
    assert {one.block for one in fours} == {16, 32, 64, 128}
    assert {one.smoothing for one in fours} == {n / 10 for n in range(11)}
    assert {one.rounding for one in fours} == {"nearest", "gptq"}
    assert {one.weights_8bit for one in fours} == {(), GROUPS[:1], GROUPS[1:], GROUPS}


def test_a_neighbour_is_one_step_of_one_option_away() -> None:
    start = {"scheme": "w8a8-per-token", "w8a8-per-token.smoothing": 10, "w8a8-per-token.rounding": "gptq"}
    start |= {f"w8a8-per-token.activations_16bit.{group}": group == GROUPS[0] for group in GROUPS}
    changed = [{key: one[key] for key in one if one[key] != start[key]} for one in SPACE.neighbours(start)]
    assert sorted(changed, key=str) == sorted(
        [
            {"w8a8-per-token.smoothing": 9},
            {"w8a8-per-token.rounding": "nearest"},
            {f"w8a8-per-token.activations_16bit.{GROUPS[0]}": False},
            {f"w8a8-per-token.activations_16bit.{GROUPS[1]}": True},
        ],
        key=str,
    )


# How it is drawn


def size_of(recipe: Choice) -> int:
    return 100 if recipe.kind == "w4a8-per-token" else 200


def error_of(recipe: Choice) -> float:
    return abs(recipe.options.smoothing - 0.3) + 0.1 * (recipe.options.rounding == "nearest")


@pytest.fixture
def measured() -> list[str]:
    """The recipes whose error was asked for."""
    return []


@pytest.fixture
def searched(tmp_path: Path, measured: list[str]) -> Callable[..., list[Trial]]:
    def searched(most: int, budget: int = 300, kept: str = "search", seed: int = 0, **wishes: Any) -> list[Trial]:
        def error(recipe: Choice) -> float:
            measured.append(str(recipe))
            return error_of(recipe)

        sizes = {"layer.0.value.weight": 10, "layer.0.query.weight": 90}
        wanted, size = Wanted(budget, wishes.get("products", 2.0)), wishes.get("size", size_of)
        search = Search(SPACE, wanted, size, lambda recipe: products(recipe, sizes), error)
        return list(search.trials(tmp_path / f"{kept}.log", seed, wishes.get("seconds", 600), most))

    return searched


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(searched) -> None:
    whole = searched(24, kept="whole")
    parts = searched(7, kept="parts"), searched(24, kept="parts")
    assert parts[0] == whole[:7]
    assert parts[1] == whole


def test_what_was_measured_once_is_not_measured_again(searched, measured: list[str]) -> None:
    searched(12)
    before = len(measured)
    searched(12)
    assert len(measured) == before == len(set(measured))


def test_a_draw_whose_run_was_killed_is_no_result(searched, tmp_path: Path) -> None:
    searched(3)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(
            str(tmp_path / "search.log"), optuna.storages.journal.JournalFileOpenLock(str(tmp_path / "search.log"))
        )
    )
    optuna.load_study(storage=storage, study_name="search").ask()
    found = searched(12)
    assert found == searched(12, kept="whole")


def test_another_seed_draws_other_recipes(searched) -> None:
    one, other = ([str(t.recipe) for t in searched(24, kept=f"seed-{seed}", seed=seed)] for seed in (0, 1))
    assert one[: len(SPACE.starts(size_of))] == other[: len(SPACE.starts(size_of))]
    assert one != other


def test_a_recipe_that_is_too_large_is_never_built(searched, measured: list[str]) -> None:
    found = searched(12, budget=150)
    assert {one.error is None for one in found if one.recipe.kind == "w8a8-per-token"} == {True}
    assert not [one for one in measured if "w8a8" in one]


def test_a_recipe_of_too_many_products_is_never_built(searched) -> None:
    found = searched(12, products=1.05)
    assert all((one.error is None) == (one.products > 1.05) for one in found)
    assert any(one.error is None for one in found)


def test_a_recipe_that_the_scheme_cannot_hold_is_never_built(searched, measured: list[str]) -> None:
    found = searched(12, size=lambda recipe: None if recipe.options.rounding == "gptq" else 100)
    assert not [one for one in measured if "gptq" in one]
    assert all((one.error is None) == (one.size is None) for one in found)


def test_the_search_comes_closer_than_what_it_begins_with(searched) -> None:
    found = searched(40)
    first = len(SPACE.starts(size_of))
    assert min(one.error for one in found) < min(one.error for one in found[:first])


def test_a_search_ends_with_its_time(searched) -> None:
    assert searched(10**6, seconds=0) == []


def test_without_optuna_there_is_one_line(searched, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(StageError, match=r"needs optuna, which is not installed; run `pip install .*\[tune\]'`"):
        searched(1)


# What is left of it

TRIALS = st.lists(
    st.builds(
        lambda number, size, more, error: Trial(number, PLAIN, size, 1 + more / 4, error and error / 10),
        st.integers(0, 99),
        st.integers(1, 5),
        st.integers(0, 4),
        st.none() | st.integers(1, 5),
    ),
    max_size=12,
)


def _beats(one: Trial, other: Trial) -> bool:
    mine, theirs = ((t.size, t.products, t.error) for t in (one, other))
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


@given(TRIALS)
def test_the_front_holds_what_nothing_beats_and_beats_or_equals_all_else(trials: list[Trial]) -> None:
    kept = pareto.front(trials)
    built = [one for one in trials if one.error is not None]
    assert not [one for one in kept if any(_beats(other, one) for other in built)]
    for one in built:
        same = ((k.size, k.products, k.error) == (one.size, one.products, one.error) for k in kept)
        assert any(_beats(k, one) for k in kept) or any(same)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_the_same_bytes_each_time(tmp_path: Path, ending: str) -> None:
    trials = [Trial(0, PLAIN, 10**7, 1, 0.1), Trial(1, PLAIN, 2 * 10**7, 1, 0.01), Trial(2, PLAIN, 10**8, 1, None)]
    files = [tmp_path / f"{n}.{ending}" for n in range(2)]
    for file in files:
        pareto.draw(trials, trials[1], 3 * 10**7, file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_picture_of_an_unknown_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"front\.xyz: cannot be written \(.*; name a \.png or \.svg file"):
        pareto.draw([], None, None, tmp_path / "front.xyz")


# How it is written down

RECIPE = Choice(
    "w4a8-per-token",
    w4a8_per_token.Options(table_block=128, weights_8bit=("*.value.weight", "a"), smoothing=0.4, rounding="gptq"),
)
WRITTEN = """\
    scheme:
      w4a8-per-token:
        smoothing: 0.4
        rounding: gptq
        table_block: 128
        weights_8bit: ["*.value.weight", "a"]
"""


@pytest.fixture
def put(tmp_path: Path):
    path = stand_ins.project(tmp_path / "project")

    def put(edited: Callable[[str], str], recipe: Choice = RECIPE) -> tuple[str, str]:
        """The file before and after."""
        path.write_text(edited(path.read_text()))
        before, read = path.read_text(), manifest.load(path)
        now = written.put(read, "int8", recipe)
        assert now.variants["int8"] == replace(read.variants["int8"], scheme=recipe)
        return before, path.read_text()

    put.path = path
    return put


def without_scheme(text: str) -> str:
    """The stand-in's int8 variant, which has its scheme in one line, without it."""
    lines = text.splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("  int8:")) + 1
    found = next(n for n in range(at, len(lines)) if lines[n].startswith("    scheme:"))
    return "".join([*lines[:found], *lines[found + 1 :]])


def test_a_recipe_joins_a_variant_without_a_scheme_and_nothing_else_moves(put) -> None:
    before, after = put(without_scheme)
    assert after == before.replace("  int8:\n", f"  int8:\n{WRITTEN}")


def test_a_recipe_takes_the_place_of_the_scheme_in_one_line(put) -> None:
    before, after = put(lambda text: text)
    assert WRITTEN in after
    assert manifest.load(put.path).variants["int4"] == manifest.load(put.path).variants["int4"]
    assert len(after.splitlines()) == len(before.splitlines()) + WRITTEN.count("\n") - 1


def test_a_recipe_takes_the_place_of_a_scheme_in_many_lines_with_its_comments(put) -> None:
    block = (
        "  int8:\n    scheme: # the first try\n      w8a8-per-token:\n\n        # of no use\n        smoothing: 0.1\n"
    )
    before, after = put(lambda text: without_scheme(text).replace("  int8:\n", block))
    assert after == before.replace(block, f"  int8:\n{WRITTEN}")


def test_a_recipe_of_standards_is_one_word(put) -> None:
    _, after = put(without_scheme, PLAIN)
    assert "  int8:\n    scheme: w8a8-per-token\n" in after


def test_excuses_below_move_along(put) -> None:
    known = "known_failures:\n  - {variant: int8, check: budget, because: it grows, until: 2099-01-01}\n"
    _, after = put(lambda text: text + known)
    assert after.endswith(known)


def test_a_variant_on_one_line_is_left_as_it_is_with_what_to_write(put) -> None:
    text = put.path.read_text()
    variants = "variants:\n  int8: {budget: 1 MB}\n"
    with pytest.raises(ManifestError, match=r"could not be put there .*; write it yourself: \{\"scheme\": ") as told:
        put(lambda text: text[: text.index("variants:")] + variants)
    assert f"{put.path}:{put.path.read_text()[: put.path.read_text().index('  int8')].count(chr(10)) + 1}:3: " in str(
        told.value
    )
    assert put.path.read_text() == text[: text.index("variants:")] + variants
