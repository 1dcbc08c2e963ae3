"""Drawing recipes until the time is over: tree-structured Parzen estimators (Bergstra et al. 2011) by optuna.

A search is kept on the disk: one that was cut off goes on where it was, and the same search draws the same recipes.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import StageError
from modelkit.tuning.space import Space
from modelkit.vocabulary import Choice

if TYPE_CHECKING:
    from optuna.study import Study

NEEDS = "run `pip install 'pytest-modelkit[tune]'`"
IMPOSSIBLE = 100.0
STARTUP = 10
"""Trials before the estimators say anything; those the space begins with are most of them."""


@dataclass(frozen=True)
class Wanted:
    """What a recipe may cost."""

    budget: int | None
    """Bytes of the model; None: any number."""
    products: float
    """Integer multiplications per weight."""

    def excess(self, size: int | None, products: float) -> float:
        """By which share of what is allowed it is exceeded; 0 for what is within, much for what cannot be made."""
        if size is None:
            return IMPOSSIBLE
        too_large = size / self.budget - 1 if self.budget else 0.0
        return max(too_large, 0.0) + max(products / self.products - 1, 0.0)


@dataclass(frozen=True)
class Trial:
    """One recipe and what became of it."""

    number: int
    recipe: Choice
    size: int | None
    """Bytes of the model, forecast; None where the scheme cannot hold it so."""
    products: float
    error: float | None
    """None for one that exceeds what is wanted: that is known before anything is built."""

    @property
    def megabytes(self) -> float:
        """10^6 bytes; NaN where there is no size."""
        return math.nan if self.size is None else self.size / 1e6


@dataclass(frozen=True)
class Search:
    """Everything that a search needs to know of a model."""

    space: Space
    wanted: Wanted
    size: Callable[[Choice], int | None]
    products: Callable[[Choice], float]
    error: Callable[[Choice], float]

    @cached_property
    def _starts(self) -> list[dict[str, Any]]:
        return self.space.starts(self._size_within)

    def _size_within(self, recipe: Choice) -> int | None:
        size = self.size(recipe)
        return None if self.wanted.excess(size, self.products(recipe)) else size

    def trials(self, kept: Path, seed: int, seconds: float, most: int | None) -> Iterator[Trial]:
        """One after the other, those that the file `kept` remembers first, until `seconds` or `most` are over.

        Raises `StageError` when optuna is not installed.
        """
        study, done = self._study(kept), 0
        end = time.monotonic() + seconds
        for old in _complete(study):
            if most is None or done < most:
                yield self._told(done, self.space.read(old.params), old.user_attrs.get("error"))
                done += 1
        while time.monotonic() < end and (most is None or done < most):
            yield self._next(study, done, seed)
            done += 1

    def _study(self, kept: Path) -> Study:
        try:
            import optuna  # noqa: PLC0415
            from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock  # noqa: PLC0415
        except ImportError as error:
            raise StageError("a search needs optuna, which is not installed", hint=NEEDS) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        kept.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(kept), JournalFileOpenLock(str(kept))))
        study = optuna.create_study(storage=storage, study_name=kept.stem, load_if_exists=True)
        # What a run that was cut off had begun is begun again.
        states = optuna.trial.TrialState
        while study.get_trials(deepcopy=False, states=(states.WAITING,)):
            study.ask()
        for stale in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            study.tell(stale.number, state=states.FAIL)
        return study

    def _next(self, study: Study, number: int, seed: int) -> Trial:
        import optuna  # noqa: PLC0415

        # Sown for each trial by itself, so that it does not matter where a search was cut off.
        study.sampler = optuna.samplers.TPESampler(
            seed=seed * 1_000_003 + number, n_startup_trials=STARTUP, multivariate=True, group=True
        )
        if given := self._given(study, number):
            study.enqueue_trial(given)
        drawn = study.ask()
        recipe = self.space.drawn(drawn)
        found = self._told(number, recipe, None)
        excess = self.wanted.excess(found.size, found.products)
        if not excess:
            error = self._known(study, drawn.params)
            found = self._told(number, recipe, self.error(recipe) if error is None else error)
            drawn.set_user_attr("error", found.error)
        # No error is as large as 1 is far: whatever is within comes before whatever is not.
        study.tell(drawn, 2 + excess if found.error is None else found.error)
        return found

    def _given(self, study: Study, number: int) -> dict[str, Any] | None:
        """What is not left to the estimators: the starts, and every other time a neighbour of the closest so far. In
        spaces of many options and few trials, what is nearly the best is seldom drawn."""
        if number < len(self._starts):
            return self._starts[number]
        if number % 2:
            return None
        known = [old.params for old in _complete(study)]
        untried = (one for one in self.space.neighbours(study.best_trial.params) if one not in known)
        return next(untried, None)

    def _told(self, number: int, recipe: Choice, error: float | None) -> Trial:
        return Trial(number, recipe, self.size(recipe), self.products(recipe), error)

    def _known(self, study: Study, parameters: dict[str, Any]) -> float | None:
        """The error of the same recipe, if it was drawn before."""
        errors = (old.user_attrs.get("error") for old in _complete(study) if old.params == parameters)
        return next((error for error in errors if error is not None), None)


def _complete(study: Study) -> list[Any]:
    import optuna  # noqa: PLC0415

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
