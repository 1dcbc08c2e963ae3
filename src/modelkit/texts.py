"""The texts that checks try on a model: odd ones by name, long ones, and those that hypothesis draws from all of
Unicode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

ODD = (
    *("", " ", "\n", " \t\r\n\u00a0\u2003\u3000\u200b", "a", "\0", "a\0b", "\x01\x07\x1b\x7f\x85"),
    *("\u0301", "e\u0301", "a" + "\u0301\u0327" * 20, "\u1100\u1161\u11a8", "\ufb01\u0130\u00df\u2126"),
    *("\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627 abc", "\u202eabc\u202c", "a\ufeffb\u00adc"),
    *("\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1e8\U0001f1ed", "\u4f60\u597d", "\U0010ffff", "\ue000"),
    *("\u0378", "\ufffd", "\ufffe", "<|im_end|>", "[SEP]", "</s>", "[CLS] a [SEP] b [MASK]", "{}", "{{ x }}", "%s"),
)
"""Empty and blank texts, control characters, combining marks, both directions of writing, joined emoji, unassigned and
private code points, and what looks like a tokenizer's or a template's own language."""
BULK = 100_000
"""Bytes of a long text in UTF-8."""
REPEATED = ("a", "a ", " ", "\0", "\u0301", "\u05d0", "\u5b57", "\U0001f469\u200d")
"""What long texts are made of: one endless word, many words, nothing but blanks, marks without a letter."""
CLOSE = ("a", "e", " ", "\n", "\t", "\0", "\u0301", "\u0308", "\u0327", "\u05d0", "\u0628", "\u202e", "\u200d",
         "\u1100", "\u1161", "\uac00", "\ufb01", "\u0130", "\u00df", "\U0001f469")  # fmt: skip
"""Characters that do something to their neighbours."""
OTHER_HALF = "This is a text."
"""What stands beside a text that is one of two."""


def named(*, pairs: bool = False) -> list[str]:
    """`ODD`; with `pairs` each as the first of two texts, and as the second, which is the last line."""
    if not pairs:
        return list(ODD)
    return [*(f"{text}\n{OTHER_HALF}" for text in ODD), *(f"{OTHER_HALF}\n{_one_line(text)}" for text in ODD)]


def long(size: int = BULK, *, pairs: bool = False) -> list[str]:
    """A text of `size` bytes of each of `REPEATED`; with `pairs` as the first of two."""
    made = [piece * (size // len(piece.encode())) for piece in REPEATED]
    return [f"{text}\n{OTHER_HALF}" for text in made] if pairs else made


def drawn(words: Sequence[str] = (), *, pairs: bool = False) -> SearchStrategy[str]:
    """Any text without surrogates, which are no characters; with `pairs` two of them, the second on the last line.

    Of all code points, unassigned and private ones too, of those that change their neighbours, and of `words`.
    """
    from hypothesis import strategies as st  # noqa: PLC0415

    anything = st.characters(codec="utf-8")
    pieces = [
        st.text(anything, max_size=20),
        st.text(st.sampled_from(CLOSE), max_size=12),
        st.text(st.characters(categories=["Cc", "Cf", "Zs", "Mn", "Cn", "Co"]), max_size=8),
        st.builds(str.__mul__, st.text(anything, min_size=1, max_size=3), st.integers(1, 100)),
        st.sampled_from(ODD),
        *([st.sampled_from(words)] if words else []),
    ]
    one = st.lists(st.one_of(pieces), min_size=1, max_size=4).map("".join)
    return st.builds("{}\n{}".format, one, one.map(_one_line)) if pairs else one


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


def smallest(text: str, fails: Callable[[str], bool]) -> str:
    """A short piece of `text` for which `fails` holds as it does for `text`: its end, then its start, by halving."""
    if fails(""):
        return ""
    short, end = 0, len(text)
    while end - short > 1:
        middle = (short + end) // 2
        short, end = (short, middle) if fails(text[:middle]) else (middle, end)
    start, late = 0, end
    while late - start > 1:
        middle = (start + late) // 2
        start, late = (middle, late) if fails(text[middle:end]) else (start, middle)
    return text[start:end]


def shown(text: str, most: int = 120) -> str:
    """`text` as a Python expression: what repeats as a product, and of what is longer than `most` the beginning."""
    if len(text) <= most or (0 < (period := _period(text)) <= most and period < len(text)):
        return exact(text, most)
    return f"{text[:most]!a}... ({len(text)} characters)"


def exact(text: str, most: int = 120) -> str:
    """A Python expression whose value is `text`; one that is longer than `most` and repeats is a product."""
    if len(text) > most and 0 < (period := _period(text)) < len(text):
        return f"{text[:period]!a} * {len(text) // period}"
    return ascii(text)


def _period(text: str) -> int:
    """The first place where a text meets itself again."""
    return (text + text).find(text, 1)
