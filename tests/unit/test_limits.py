"""Limits: a verdict says passed exactly when every number is on its side of its limit, and names those that are not."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelkit.limits import at_least, at_most, judge

numbers = st.floats(-1e6, 1e6)
# As people write them; beside a limit of 1e-308 every margin is infinite.
standards = numbers.map(lambda number: round(number, 6))
anything = st.one_of(numbers, st.sampled_from([math.nan, math.inf, -math.inf]))


@dataclass(frozen=True)
class Both:
    cosine: float = at_least(0.9)
    seconds: float = at_most(2.0)


@dataclass(frozen=True)
class Fidelity:
    cosine: float = at_least(0.9)


@dataclass(frozen=True)
class Cost:
    seconds: float = at_most(2.0)


@dataclass(frozen=True)
class Optional:
    cosine: float = at_least(0.9)
    seconds: float | None = at_most(None)


@dataclass(frozen=True)
class Nothing:
    pass


def holds(measured: dict[str, float], limits: Both) -> dict[str, bool]:
    return {
        "cosine": math.isfinite(measured["cosine"]) and measured["cosine"] >= limits.cosine,
        "seconds": math.isfinite(measured["seconds"]) and measured["seconds"] <= limits.seconds,
    }


limits = st.builds(Both, cosine=standards, seconds=standards)
measurements = st.fixed_dictionaries({"cosine": anything, "seconds": anything})


@given(measurements, limits)
def test_a_verdict_is_passed_exactly_when_every_value_holds(measured, limits):
    assert judge("speed", measured, limits).outcome == ("passed" if all(holds(measured, limits).values()) else "failed")


@given(st.fixed_dictionaries({"cosine": numbers, "seconds": numbers}), limits)
def test_the_margin_is_not_negative_exactly_when_passed(measured, limits):
    verdict = judge("speed", measured, limits)
    assert verdict.margin is not None
    assert (verdict.margin >= 0) == (verdict.outcome == "passed")


@given(numbers, numbers, standards)
def test_a_higher_fidelity_never_has_a_smaller_margin(one, other, limit):
    low, high = (judge("x", {"cosine": value}, Fidelity(limit)).margin for value in sorted((one, other)))
    assert low <= high


@given(numbers, numbers, standards)
def test_a_higher_cost_never_has_a_larger_margin(one, other, limit):
    low, high = (judge("x", {"seconds": value}, Cost(limit)).margin for value in sorted((one, other)))
    assert low >= high


@given(numbers, numbers)
def test_a_value_at_its_limit_passes_with_no_margin(cosine, seconds):
    verdict = judge("speed", {"cosine": cosine, "seconds": seconds}, Both(cosine, seconds))
    assert (verdict.outcome, verdict.margin) == ("passed", 0)


@given(numbers)
def test_the_next_number_below_a_lower_limit_fails(limit):
    assert judge("x", {"cosine": math.nextafter(limit, -math.inf)}, Fidelity(limit)).outcome == "failed"


@given(measurements, limits)
def test_the_sentence_of_a_failure_names_each_broken_limit_and_no_other(measured, limits):
    held = holds(measured, limits)
    assume(not all(held.values()))
    parts = judge("speed", measured, limits).sentence.split("; ")
    assert [part.split()[0] for part in parts] == [name for name, fine in held.items() if not fine]


@given(standards, st.floats(0, 1e-3))
def test_the_sentence_of_a_failure_never_shows_two_numbers_that_look_alike(limit, distance):
    value = min(limit - distance, math.nextafter(limit, -math.inf))
    words = judge("x", {"cosine": value}, Fidelity(limit)).sentence.split()
    assert float(words[1]) < float(words[-1])


@given(measurements, limits)
def test_whatever_was_measured_the_verdict_is_strict_json(measured, limits):
    json.dumps(asdict(judge("speed", measured, limits)), allow_nan=False)


def test_the_sentence_gives_value_and_limit_of_a_broken_lower_limit():
    assert judge("x", {"cosine": 0.5, "seconds": 1.0}, Both()).sentence == "cosine 0.5 is below 0.9"


def test_the_sentence_gives_value_and_limit_of_a_broken_upper_limit():
    assert judge("x", {"cosine": 1.0, "seconds": 2.5}, Both()).sentence == "seconds 2.5 is above 2"


def test_the_sentence_of_two_broken_limits_gives_both():
    sentence = judge("x", {"cosine": 0.5, "seconds": 2.5}, Both()).sentence
    assert sentence == "cosine 0.5 is below 0.9; seconds 2.5 is above 2"


def test_a_value_that_rounds_to_its_limit_is_shown_in_full():
    assert judge("x", {"cosine": 0.8999999999}, Fidelity()).sentence == "cosine 0.8999999999 is below 0.9"


def test_the_sentence_of_a_pass_gives_every_figure():
    assert judge("x", {"cosine": 0.95, "seconds": 1.5}, Both()).sentence == "cosine 0.95, seconds 1.5"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_fails_without_margin_and_is_recorded_as_none(value):
    verdict = judge("x", {"cosine": value, "seconds": 1.0}, Both())
    assert (verdict.outcome, verdict.margin, verdict.measured) == ("failed", None, {"cosine": None, "seconds": 1.0})


def test_the_sentence_says_which_number_is_not_finite():
    sentence = judge("x", {"cosine": math.inf, "seconds": 1.0}, Both()).sentence
    assert sentence == "cosine inf is not a finite number (limit 0.9)"


def test_a_limit_that_is_no_number_lets_nothing_through():
    assert judge("x", {"cosine": 1.0}, Fidelity(math.nan)).outcome == "failed"


def test_a_limit_of_none_is_no_limit():
    verdict = judge("x", {"cosine": 0.95, "seconds": 1e9}, Optional())
    assert (verdict.outcome, verdict.sentence) == ("passed", "cosine 0.95")


def test_a_check_without_limits_passes_without_margin():
    verdict = judge("x", {"files": 3}, Nothing())
    assert (verdict.outcome, verdict.margin) == ("passed", None)


def test_the_margin_of_a_fidelity_is_its_share_of_the_way_to_one():
    assert judge("x", {"cosine": 0.95}, Fidelity(0.9)).margin == pytest.approx(0.5)


def test_the_margin_of_a_lower_limit_above_one_is_a_share_of_the_limit():
    assert judge("x", {"cosine": 5.0}, Fidelity(4.0)).margin == pytest.approx(0.25)


def test_the_margin_of_a_cost_is_its_share_of_the_limit():
    assert judge("x", {"seconds": 1.5}, Cost(2.0)).margin == pytest.approx(0.25)


def test_the_margin_is_that_of_the_nearest_limit():
    assert judge("x", {"cosine": 0.95, "seconds": 1.9}, Both()).margin == pytest.approx(0.05)


def test_measured_values_without_a_limit_are_kept():
    assert judge("x", {"cosine": 0.95, "texts": 402}, Fidelity()).measured == {"cosine": 0.95, "texts": 402}


def test_a_value_that_was_not_measured_is_the_checks_own_mistake():
    with pytest.raises(KeyError):
        judge("x", {}, Fidelity())


def test_the_limits_and_the_worst_cases_are_in_the_verdict():
    verdict = judge("x", {"cosine": 0.95}, Fidelity(0.91), ({"id": "t1"},))
    assert (verdict.limits, verdict.worst) == ({"cosine": 0.91}, ({"id": "t1"},))
