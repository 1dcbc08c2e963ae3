"""Arguments: what is one comes back as it was given; anything else is told by name, in one line."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit import arguments
from modelkit.errors import InputError

ODD = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.dates(), st.just(object())),
    *(st.text(st.characters()), st.lists(st.integers()), st.dictionaries(st.text(), st.text())),
)
READERS = [arguments.text, arguments.texts, arguments.whole, arguments.number, arguments.flag, arguments.day]


@pytest.mark.parametrize("read", READERS)
@given(odd=ODD)
def test_anything_is_taken_or_told_by_name_in_one_short_line(read: Any, odd: Any) -> None:
    told = []
    try:
        read("wish", odd)
    except InputError as error:
        told.append(error.message)
    assert all("wish" in line and "\n" not in line and len(line) < 300 for line in told)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_comes_back_as_it_is(given_: str) -> None:
    assert arguments.text("it", given_) is given_
    assert arguments.texts("it", [given_, given_]) == [given_, given_]


@pytest.mark.parametrize("some", [("a", "b"), np.array(["a", "b"]), iter(["a", "b"])])
def test_whatever_can_be_gone_through_is_a_list(some: Any) -> None:
    assert arguments.texts("it", some) == ["a", "b"]


@pytest.mark.parametrize(("number", "least"), [(3, None), (np.int64(3), 3), (3, 1)])
def test_whole_numbers_of_any_kind_are_taken(number: Any, least: int | None) -> None:
    found = arguments.whole("it", number, least)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("number", [True, 3.0, "3", None])
def test_what_only_looks_like_a_whole_number_is_refused(number: Any) -> None:
    with pytest.raises(InputError, match="expected it to be a whole number, got"):
        arguments.whole("it", number)


def test_a_date_and_a_time_are_days() -> None:
    for day in (date(2024, 7, 26), datetime(2024, 7, 26, 1, 2)):
        assert arguments.day("it", day) is day


def test_an_unknown_name_is_told_with_the_nearest_known_one() -> None:
    with pytest.raises(InputError, match=r"there is no argument 'max_token'.*max_tokens"):
        arguments.refuse_unknown(["max_token"], ["max_tokens", "seed"])
