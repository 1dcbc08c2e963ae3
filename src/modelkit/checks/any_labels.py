"""Whatever the labels are called and however they are ordered, their scores are scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelkit.errors import ModelkitError, StageError
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Subject, Verdict

Case = tuple[Sequence[str], Sequence[str], bool]
"""Texts, labels, and whether each label is judged by itself."""

VERSION = 2
NEEDS = ("labels",)
PROMISE = "every label gets a score from 0 to 1, whatever its order, and those of one text sum to one"
EXAMPLES = {"quick": 25, "full": 200, "release": 1000}
NAMED: tuple[Case, ...] = (
    (["a"], ["a"], False),
    (["a"], ["a", "a"], False),
    (["a", ""], ["a", "", "{}", "[SEP]", "\n", "\0"], False),
    (["a", "a b " * 400], ["\u05e9\u05dc\u05d5\u05dd", "a", "a b", "a"], True),
)


@dataclass(frozen=True)
class Options:
    """How far from one a sum may be, and how far a label's score may move with its place among the labels."""

    sum_error: float = at_most(1e-6)
    order_error: float = at_most(1e-3)


def check(subject: Subject, limits: Options) -> Verdict:
    """Classify odd texts by odd labels, forwards and backwards, and then those that are drawn."""
    from hypothesis import strategies as st  # noqa: PLC0415

    from modelkit import searching, texts  # noqa: PLC0415

    try:
        scores = _Scores(subject, limits)
    except StageError as error:
        return Verdict("any-labels", "failed", f"the finished folder cannot be used: {error.message}")
    words = sorted((row["text"].partition("\n")[0] for row in subject.corpus), key=len)[:100]
    label = texts.drawn().map(lambda text: text[:12])
    cases: Any = st.tuples(
        st.lists(texts.drawn(words), min_size=1, max_size=3), st.lists(label, min_size=1, max_size=5), st.booleans()
    )
    found = searching.all_broken(NAMED, cases, scores.reason, subject.examples)
    verdict = judge("any-labels", {**scores.measured, "examples": subject.examples}, limits)
    if not found:
        return verdict
    worst = tuple({"reason": one.reason, "again": _again(one.example)} for one in found)
    return replace(verdict, outcome="failed", sentence=f"{found[0].reason}: {_again(found[0].example)}", worst=worst)


class _Scores:
    """What the model's `classify` says, and what is wrong with it; the worst figures so far."""

    def __init__(self, subject: Subject, limits: Options) -> None:
        self._limits, self._model = limits, subject.open(subject.artifact)
        self.measured: dict[str, Any] = {"sum_error": 0.0, "order_error": 0.0, "scores": 0, "left_out": 0}

    def reason(self, case: Case) -> str | None:
        """What is wrong with the scores; labels that leave no room for a text are left out."""
        texts, labels, alone = case
        if not all(map(self._model.fits, labels)):
            self.measured["left_out"] += 1
            return None
        try:
            rows = self._model.classify(texts, labels, multi_label=alone)
            turned = self._model.classify(texts, labels[::-1], multi_label=alone)
        except ModelkitError as error:
            return f"the model does not run ({error.message})"
        self.measured["scores"] += sum(map(len, rows))
        reasons = (
            self._of(row, labels, alone=alone) or self._moved(row, other)
            for row, other in zip(rows, turned, strict=True)
        )
        return next((reason for reason in reasons if reason), None)

    def _of(self, row: Sequence[Any], labels: Sequence[str], *, alone: bool) -> str | None:
        scores = [one.score for one in row]
        if sorted(one.label for one in row) != sorted(labels):
            return f"{len(labels)} labels come back as {len(row)}"
        # Asked this way round, what is no number is none from 0 to 1 either.
        if wrong := [score for score in scores if not 0 <= score <= 1]:
            return f"a score is {wrong[0]}"
        if scores != sorted(scores, reverse=True):
            return "the labels are not in the order of their scores"
        if alone or len(labels) == 1:
            return None
        error = abs(sum(scores) - 1)
        self.measured["sum_error"] = max(self.measured["sum_error"], error)
        return f"the scores sum to {sum(scores)!r}" if error > self._limits.sum_error else None

    def _moved(self, row: Sequence[Any], other: Sequence[Any]) -> str | None:
        """A label's score must not hang on its place, and a label that is there twice has one score."""
        scores: dict[str, list[float]] = {}
        for one in (*row, *other):
            scores.setdefault(one.label, []).append(one.score)
        error, label = max((max(some) - min(some), label) for label, some in scores.items())
        self.measured["order_error"] = max(self.measured["order_error"], error)
        return f"{label!r} scores {error:.2g} more in another place" if error > self._limits.order_error else None


def _again(case: Case) -> str:
    """The call that shows it, of what `modelkit.model.load` gives."""
    from modelkit.texts import exact  # noqa: PLC0415

    texts, labels = (", ".join(map(exact, some)) for some in case[:2])
    return f"load(folder).classify([{texts}], [{labels}], multi_label={case[2]})"
