"""What a caller gives to a loaded model, or one sentence that says why it cannot be taken: which argument, what was
given, what is expected.

Each function takes the argument's name, returns the argument, and raises `InputError` for what is none of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from numbers import Integral, Real
from typing import Any

from modelkit.errors import InputError
from modelkit.kinds import did_you_mean

SHOWN = 40
"""Characters of a text that a message repeats."""


def wrong(name: str, expected: str, given: object, hint: str | None = None) -> InputError:
    """The sentence about an argument that is nothing of what is expected."""
    return InputError(f"expected {name} to be {expected}, got {shown(given)}", hint=hint)


def text(name: str, given: object) -> str:
    """One text. Half of a surrogate pair is no character, and has no bytes that a tokenizer could read."""
    if not isinstance(given, str):
        raise wrong(name, "a text", given)
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"expected {name} to be a text, its character {error.start + 1} is the lone surrogate"
            f" {given[error.start]!a}",
            hint="decode it again with errors='replace'",
        ) from error
    return given


def texts(name: str, given: object, what: str = "text") -> list[str]:
    """Any number of them, none too. One alone, without a list, would be taken letter by letter."""
    return [text(f"{name}[{place}]", one) for place, one in enumerate(several(name, given, what))]


def several(name: str, given: Any, what: str) -> list[Any]:
    """A list of whatever it may be; anything else that can be gone through will do, such as a tuple or an array."""
    if isinstance(given, str | bytes | Mapping):
        raise wrong(name, f"a list of {what}s", given, hint=f"put the one {what} in brackets")
    if not isinstance(given, Iterable) or getattr(given, "shape", None) == ():
        raise wrong(name, f"a list of {what}s", given)
    return list(given)


def whole(name: str, given: Any, least: int | None = None) -> int:
    """A whole number, numpy's too; a bool is none."""
    at_least = "" if least is None else f" of at least {least}"
    if isinstance(given, bool) or not isinstance(given, Integral) or (least is not None and int(given) < least):
        raise wrong(name, f"a whole number{at_least}", given)
    return int(given)


def number(name: str, given: Any) -> float:
    """A whole number or a float, numpy's too; a bool is none."""
    if isinstance(given, bool) or not isinstance(given, Real):
        raise wrong(name, "a number", given)
    try:
        return float(given)
    except OverflowError as error:
        raise wrong(name, "a number", given) from error


def flag(name: str, given: object) -> bool:
    """True or False, and nothing that only counts as one of them."""
    if not isinstance(given, bool):
        raise wrong(name, "True or False", given)
    return given


def day(name: str, given: object) -> date:
    """A date; a datetime is one."""
    if not isinstance(given, date):
        raise wrong(name, "a datetime.date", given)
    return given


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `InputError` for a name that is none of `known`, with the nearest of them."""
    known = list(known)
    for name in given:
        if name not in known:
            raise InputError(f"there is no argument '{name}'{did_you_mean(name, known)}")


def shown(given: object) -> str:
    """What was given, in few characters; of what may be long, or have no text of its own, the type."""
    if isinstance(given, str):
        return f"{given[:SHOWN]!a}{'...' if len(given) > SHOWN else ''}"
    if given is None or isinstance(given, float) or (isinstance(given, int) and abs(given) < 10**SHOWN):
        return repr(given)
    return f"a value of type {type(given).__name__}"
