"""Labels that nobody trained for: a text gets the one that the float32 model gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelkit.errors import CheckError
from modelkit.limits import at_least, at_most, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Scores = npt.NDArray[np.float64]

VERSION = 1
NEEDS = ("labels",)
PROMISE = "asked which of eight labels fits a text, the model mostly answers as the float32 model does, about as surely"
LABELS = ("computers", "food", "health", "money", "music", "sport", "travel", "weather")
TEXTS = 32
WORST = 5


@dataclass(frozen=True)
class Options:
    """Share of the texts whose first label is the float32 model's, what the others lose by its scores, and how far
    all scores are from its own."""

    same_label: float = at_least(0.7)
    loss_mean: float = at_most(0.03)
    score_difference: float = at_most(0.05)


def check(subject: Subject, limits: Options) -> Verdict:
    """Classify texts of the corpus with both models, as the manifest's options say. A score that is not finite fails.

    Raises `CheckError` when there is nothing to compare with: an empty corpus, float32 scores that are not finite.
    """
    import numpy as np  # noqa: PLC0415

    rows = chosen(subject.corpus)
    if not rows:
        raise CheckError("the corpus is empty", hint="write some texts")
    ours, theirs = (_scores(subject.open(one), [row["text"] for row in rows])
                    for one in (subject.artifact, subject.reference))  # fmt: skip
    if not np.isfinite(theirs).all():
        raise CheckError("the float32 model's own scores are not finite", hint="look at the weights")
    if len(broken := np.flatnonzero(~np.isfinite(ours).all(1))):
        sentence = f"a score of text {rows[broken[0]]['id']} is not finite ({len(broken)} such texts)"
        return Verdict("agreement", "failed", sentence)
    measured = {
        "same_label": float((ours.argmax(1) == theirs.argmax(1)).mean()),
        "loss_mean": float(losses(ours, theirs).mean()),
        "score_difference": float(np.abs(ours - theirs).mean()),
        "texts": len(rows),
    }
    return judge("agreement", measured, limits, _worst(rows, ours, theirs))


def chosen(corpus: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """32 texts, evenly over the shorter half: of a pair the premise, each once."""
    from modelkit import corpora  # noqa: PLC0415

    premises: dict[str, Mapping[str, str]] = {}
    for row in corpus:
        text = row["text"].rpartition("\n")[0] or row["text"]
        premises.setdefault(text, {**row, "text": text})
    ordered = corpora.spread([*premises.values()], len(premises))
    return corpora.spread(ordered[: (len(ordered) + 1) // 2], TEXTS)


def losses(ours: Scores, theirs: Scores) -> Scores:
    """float64[texts], not negative: by how much the float32 model rates the artifact's label below its own."""
    import numpy as np  # noqa: PLC0415

    return np.asarray(theirs.max(1) - theirs[np.arange(len(theirs)), ours.argmax(1)])


def _scores(model: Any, texts: Sequence[str]) -> Scores:
    """float64[texts, labels], in the order of `LABELS`."""
    import numpy as np  # noqa: PLC0415

    answers = [dict(ranked) for ranked in model.classify(texts, LABELS)]
    return np.array([[answer[label] for label in LABELS] for answer in answers], np.float64)


def _worst(rows: Sequence[Mapping[str, str]], ours: Scores, theirs: Scores) -> tuple[dict[str, Any], ...]:
    """Another label first, and among those what the float32 model was surest of; then the largest difference."""
    import numpy as np  # noqa: PLC0415

    lost, apart = losses(ours, theirs), np.abs(ours - theirs).max(1)
    order = sorted(range(len(rows)), key=lambda n: (-lost[n], -apart[n]))[:WORST]
    return tuple({"id": rows[n]["id"], "label": LABELS[ours[n].argmax()], "float32": LABELS[theirs[n].argmax()],
                  "loss": round(float(lost[n]), 6), "score_difference": round(float(apart[n]), 6),
                  "text": rows[n]["text"][:80]} for n in order)  # fmt: skip
