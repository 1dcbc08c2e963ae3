"""Hypothesis as a search inside a check: an example that breaks a promise, or the worst one, the same in every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


@dataclass(frozen=True)
class Broken(Generic[T]):
    """The smallest example found for which a promise does not hold, and how it is broken."""

    example: T
    reason: str


@dataclass(frozen=True)
class Worst(Generic[T]):
    """The example of the highest score found."""

    example: T
    score: float
    tried: int


class _BrokenPromiseError(Exception):
    """Tells hypothesis that an example is one to shrink."""


def broken(strategy: SearchStrategy[T], test: Callable[[T], str | None], examples: int) -> Broken[T] | None:
    """The smallest of up to `examples` examples, and those it shrinks to, for which `test` gives a reason.

    What `test` raises goes through. An example for which `test` answers differently when asked again is still one.
    """
    from hypothesis import Phase  # noqa: PLC0415
    from hypothesis.errors import Flaky  # noqa: PLC0415

    found: list[Broken[T]] = []

    def run(example: T) -> None:
        if (reason := test(example)) is not None:
            found.append(Broken(example, reason))
            raise _BrokenPromiseError

    try:
        _search(strategy, run, examples, [Phase.generate, Phase.shrink])
    except (_BrokenPromiseError, Flaky):
        # Hypothesis ends by running the smallest once more.
        return found[-1]
    return None


def worst(strategy: SearchStrategy[T], score: Callable[[T], float], examples: int, seed: int | None = None) -> Worst[T]:
    """The example with the highest finite score among `examples`, which hypothesis draws ever nearer to high scores
    (targeted property-based testing, Löscher and Sagonas 2017, doi:10.1145/3092703.3092711).

    Another `seed` draws other examples."""
    from hypothesis import Phase, target  # noqa: PLC0415

    seen: list[tuple[float, T]] = []

    def run(example: T) -> None:
        found = score(example)
        seen.append((found, example))
        target(found)

    _search(strategy, run, examples, [Phase.generate, Phase.target], seed)
    best, example = max(seen, key=lambda one: one[0])
    return Worst(example, best, len(seen))


def _search(
    strategy: SearchStrategy[T],
    run: Callable[[T], None],
    examples: int,
    phases: list[Any],
    chosen: int | None = None,
) -> None:
    """Derandomized or seeded, and without a database: what one run finds, every run finds."""
    from hypothesis import HealthCheck, Verbosity, given, seed, settings  # noqa: PLC0415

    settled = settings(
        max_examples=examples,
        phases=phases,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    test = given(strategy)(run)
    settled(test if chosen is None else seed(chosen)(test))()
