"""How a check declares its limits, and how measured values are held against them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from typing import Any

from modelkit.vocabulary import Verdict


def at_least(standard: float) -> Any:
    """A field of a check's `Options`: the measured value of the same name must not be below it."""
    return field(default=standard, metadata={"sense": ">="})


def at_most(standard: float) -> Any:
    """A field of a check's `Options`: the measured value of the same name must not be above it."""
    return field(default=standard, metadata={"sense": "<="})


def judge(check: str, measured: Mapping[str, Any], limits: Any, worst: tuple[Mapping[str, Any], ...] = ()) -> Verdict:
    """The verdict on `measured`, which has a number for every field of `limits`. A number that is not finite fails."""
    margins = {limit.name: _margin(measured[limit.name], limit.metadata["sense"], getattr(limits, limit.name))
               for limit in fields(limits)}  # fmt: skip
    broken = [name for name, margin in margins.items() if margin < 0]
    sentences = [f"{name} {_shown(measured[name])} is {_side(limits, name)} {_shown(getattr(limits, name))}"
                 for name in broken]  # fmt: skip
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


def _side(limits: Any, name: str) -> str:
    sense = next(limit.metadata["sense"] for limit in fields(limits) if limit.name == name)
    return "below" if sense == ">=" else "above"


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _shown(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
