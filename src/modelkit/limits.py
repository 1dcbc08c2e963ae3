"""How a check declares its limits, and how measured values are held against them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from typing import Any

from modelkit.vocabulary import Verdict


def at_least(standard: float | None) -> Any:
    """A field of a check's `Options`: the measured value of the same name must not be below it; None: no limit."""
    return field(default=standard, metadata={"sense": ">="})


def at_most(standard: float | None) -> Any:
    """A field of a check's `Options`: the measured value of the same name must not be above it; None: no limit."""
    return field(default=standard, metadata={"sense": "<="})


def judge(check: str, measured: Mapping[str, Any], limits: Any, worst: tuple[Mapping[str, Any], ...] = ()) -> Verdict:
    """The verdict on `measured`, which has a number for every field of `limits`. A number that is not finite fails.

    A limit of None is no limit.
    """
    margins = {limit.name: _margin(measured[limit.name], limit.metadata["sense"], getattr(limits, limit.name))
               for limit in fields(limits) if getattr(limits, limit.name) is not None}  # fmt: skip
    # Asked this way round, a margin that is not a number is broken too.
    broken = [name for name, margin in margins.items() if not margin >= 0]
    sentences = [_told(name, measured[name], _side(limits, name), getattr(limits, name)) for name in broken]
    figures = ", ".join(f"{name} {_shown(measured[name])}" for name in margins)
    least = min(margins.values(), default=None)
    return Verdict(
        check,
        "failed" if broken else "passed",
        "; ".join(sentences) or figures,
        {name: value if _is_finite(value) else None for name, value in measured.items()},
        asdict(limits),
        least if least is None or math.isfinite(least) else None,
        worst,
    )


def _margin(value: float, sense: str, limit: float) -> float:
    """The distance to the limit as a share of the room beyond it: up to 1 for a fidelity, down to 0 for a cost."""
    if not math.isfinite(value):
        return -math.inf
    room = (1 - limit if limit < 1 else abs(limit)) if sense == ">=" else abs(limit)
    distance = value - limit if sense == ">=" else limit - value
    return distance / room if room else distance


def _told(name: str, value: float, side: str, limit: float) -> str:
    if not math.isfinite(value):
        return f"{name} {value} is not a finite number (limit {_shown(limit)})"
    shown = _shown(value), _shown(limit)
    # Rounded to one text, "0.85 is below 0.85" would explain nothing.
    value_text, limit_text = shown if shown[0] != shown[1] else (repr(float(value)), repr(float(limit)))
    return f"{name} {value_text} is {side} {limit_text}"


def _side(limits: Any, name: str) -> str:
    sense = next(limit.metadata["sense"] for limit in fields(limits) if limit.name == name)
    return "below" if sense == ">=" else "above"


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _shown(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
