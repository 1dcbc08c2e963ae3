"""The search inside checks finds what is there, the smallest of it, and the same every time."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from modelkit import searching


def test_nothing_is_found_where_the_promise_holds() -> None:
    assert searching.broken(st.integers(), lambda _: None, 50) is None


def test_the_smallest_example_is_found() -> None:
    found = searching.broken(st.lists(st.integers()), lambda some: "long" if len(some) > 2 else None, 200)
    assert found == searching.Broken([0, 0, 0], "long")


def test_an_example_that_is_broken_once_only_is_found_all_the_same() -> None:
    asked: list[int] = []

    def once(number: int) -> str | None:
        asked.append(number)
        return "broken" if len(asked) == 1 else None

    assert searching.broken(st.integers(), once, 20) is not None


def test_what_the_test_raises_goes_through() -> None:
    def fails(_: int) -> None:
        raise LookupError("of the test's own")

    with pytest.raises(LookupError, match="of the test's own"):
        searching.broken(st.integers(), fails, 5)


def test_the_worst_of_many_is_found_with_its_score() -> None:
    found = searching.worst(st.integers(0, 1000), lambda number: -abs(number - 613.0), 400)
    assert found.score == -abs(found.example - 613.0)
    assert found.score > -20


def test_no_more_examples_are_tried_than_asked_for() -> None:
    tried: list[int] = []
    found = searching.worst(st.integers(), lambda number: float(tried.append(number) or 0), 25)
    assert len(tried) == found.tried <= 25


def test_two_searches_try_the_same() -> None:
    tried: list[list[str]] = [[], []]
    for one in tried:
        searching.broken(st.text(), lambda text, one=one: one.append(text), 30)
    assert tried[0] == tried[1]
    assert len({*tried[0]}) > 10


def test_another_seed_tries_others_and_the_same_seed_the_same() -> None:
    tried: list[list[str]] = [[], [], []]
    for one, seed in zip(tried, (1, 1, 2), strict=True):
        searching.worst(st.text(), lambda text, one=one: float(one.append(text) or 0), 30, seed)
    assert tried[0] == tried[1] != tried[2]


def test_no_file_is_left_behind(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    searching.broken(st.integers(), lambda number: "large" if number > 10 else None, 50)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".hypothesis"] == []
