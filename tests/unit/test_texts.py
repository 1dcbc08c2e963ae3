"""The texts of the checks: legal, of the promised size, in every corner of Unicode, and told as what can be typed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from modelkit import texts

PAIRS = [False, True]


def test_no_two_odd_texts_are_alike():
    assert len({*texts.ODD}) == len(texts.ODD)


@pytest.mark.parametrize("pairs", PAIRS)
def test_every_text_can_be_written_into_a_file(pairs):
    for text in (*texts.named(pairs=pairs), *texts.long(pairs=pairs)):
        text.encode("utf-8")


def test_every_pair_has_its_second_text_on_the_last_line():
    firsts, seconds = zip(*(text.rsplit("\n", 1) for text in texts.named(pairs=True)), strict=True)
    assert firsts.count(texts.OTHER_HALF) >= len(texts.ODD)
    assert seconds.count(texts.OTHER_HALF) >= len(texts.ODD)


@pytest.mark.parametrize("size", [10, 1000, texts.BULK])
def test_long_texts_have_the_size_that_is_asked_for(size):
    assert {size - len(text.encode()) < 11 for text in texts.long(size)} == {True}
    assert all(len(text.encode()) <= size for text in texts.long(size))


@given(texts.drawn())
def test_a_drawn_text_has_no_surrogates(text):
    assert not any(unicodedata.category(letter) == "Cs" for letter in text)


@given(texts.drawn(pairs=True))
def test_a_drawn_pair_is_a_pair(text):
    assert "\n" in text


@pytest.mark.parametrize("category", ["Cc", "Cf", "Cn", "Co", "Mn", "Zs", "Lo", "So"])
def test_every_kind_of_character_is_drawn(category):
    found = find(texts.drawn(), lambda text: any(unicodedata.category(letter) == category for letter in text))
    assert found


def test_words_of_the_corpus_are_drawn_among_other_things():
    assert "conveyance" in find(texts.drawn(["conveyance"]), lambda text: "conveyance" in text and len(text) > 12)


@given(st.text(max_size=50), st.text(min_size=1, max_size=5), st.text(max_size=50))
def test_the_smallest_piece_still_fails_and_is_a_piece(before, core, after):
    whole = before + core + after
    found = texts.smallest(whole, lambda piece: core in piece)
    assert found == core


def test_of_a_text_that_fails_whatever_is_left_nothing_is_left():
    assert texts.smallest("abc", lambda _: True) == ""


@given(st.one_of(texts.drawn(), st.builds(str.__mul__, st.text(min_size=1, max_size=5), st.integers(1, 500))))
def test_a_text_is_told_as_the_expression_that_makes_it(text):
    told = texts.shown(text)
    assert told.isascii()
    assert told.endswith(f"... ({len(text)} characters)") or eval(told) == text


def test_what_repeats_is_told_as_a_product():
    assert texts.shown("ab " * 1000) == "'ab ' * 1000"


def test_of_a_long_text_the_beginning_is_told():
    assert texts.shown("".join(map(str, range(100))), 10) == "'0123456789'... (190 characters)"


@given(st.text(max_size=300) | st.builds(str.__mul__, st.text(min_size=1, max_size=200), st.integers(1, 200)))
def test_an_exact_text_is_an_expression_that_gives_it(text):
    assert value_of(texts.exact(text)) == text


def value_of(expression):
    return eval(expression, {"__builtins__": {}})


def test_an_exact_text_that_repeats_is_short():
    assert texts.exact("a " * 1000) == "'a ' * 1000"


def test_a_long_text_that_does_not_repeat_is_shown_in_part_and_exact_in_full():
    text = "".join(map(str, range(200)))
    assert texts.shown(text).endswith("... (490 characters)")
    assert texts.exact(text) == repr(text)
