"""file_names.py: what matches, what is safe, what may be printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit import file_names
from modelkit.errors import SourceError
from modelkit.vocabulary import Wanted

part = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\:*?[]", exclude_categories=["C"]), min_size=1
).filter(lambda text: text not in (".", ".."))
name = st.lists(part, min_size=1, max_size=4).map("/".join)


@given(name)
def test_a_plain_name_matches_only_itself(text: str) -> None:
    assert file_names.matches(text, text)
    assert not file_names.matches(f"{text}x", text)
    assert not file_names.is_pattern(text)


@given(name)
def test_stars_match_exactly_their_own_depth(text: str) -> None:
    stars = "/".join("*" for _ in text.split("/"))
    assert file_names.matches(text, stars)
    assert not file_names.matches(text, f"{stars}/*")
    assert not file_names.matches(f"folder/{text}", stars)


@given(part, part)
def test_a_suffix_pattern_stays_in_its_folder(folder: str, stem: str) -> None:
    assert file_names.matches(f"{stem}.safetensors", "*.safetensors")
    assert not file_names.matches(f"{folder}/{stem}.safetensors", "*.safetensors")


@given(name)
def test_ordinary_names_are_safe(text: str) -> None:
    assert file_names.is_safe(text)


@given(st.text())
def test_a_safe_name_stays_below_the_folder_it_is_joined_to(text: str) -> None:
    if file_names.is_safe(text):
        joined = Path("/folder") / text
        assert joined.is_relative_to("/folder")
        assert ".." not in joined.parts


@given(st.sampled_from(["..", ".", ""]), name, name)
def test_a_dangerous_part_makes_any_name_unsafe(bad: str, before: str, after: str) -> None:
    for text in (f"{bad}/{after}", f"{before}/{bad}/{after}", f"{before}/{bad}"):
        assert not file_names.is_safe(text)


@pytest.mark.parametrize("text", ["/etc/passwd", "C:\\x", "C:x", "a\\b", "a\0b", "a\nb", "~/../x", ""])
def test_known_tricks_are_unsafe(text: str) -> None:
    assert not file_names.is_safe(text)


@given(st.lists(name, unique=True, min_size=1))
def test_exact_names_select_themselves_in_the_order_of_the_listing(available: list[str]) -> None:
    wanted = Wanted(names=tuple(reversed(available)))
    assert file_names.select(wanted, available) == tuple(available)


def test_names_win_over_patterns() -> None:
    assert file_names.select(Wanted(("*",), ("a",)), ["a", "b"]) == ("a",)


def test_an_unsafe_name_that_nobody_wants_does_no_harm() -> None:
    assert file_names.select(Wanted(("*.json",)), ["a.json", "odd\\name"]) == ("a.json",)


def test_many_missing_names_are_counted() -> None:
    with pytest.raises(SourceError, match="and 3 more"):
        file_names.select(Wanted(names=tuple("abcdefgh")), [])


@pytest.mark.parametrize(
    ("available", "root"),
    [
        (["config.json", "a/config.json"], ""),
        (["a/config.json", "a/b/config.json"], "a/"),
        (["a/b/config.json", "README"], "a/b/"),
        (["a/my_config.json"], ""),
        ([], ""),
    ],
)
def test_the_model_is_in_the_shallowest_folder_with_a_configuration(available: list[str], root: str) -> None:
    assert file_names.root_of(Wanted(("*",)), available) == root


def test_the_model_is_where_all_exact_names_are() -> None:
    wanted = Wanted(names=("1_Pooling/config.json", "config.json"))
    assert file_names.root_of(wanted, ["config.json", "a/config.json", "a/1_Pooling/config.json"]) == "a/"


@given(name, st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8))
def test_a_password_does_not_survive(path: str, secret: str) -> None:
    address = f"https://me:{secret}@example.test/?key={secret}"
    assert file_names.without_secrets(f"see {address} and more") == "see https://example.test/ and more"
