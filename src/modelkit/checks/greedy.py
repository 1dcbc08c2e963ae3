"""Greedy answers: where they leave those of the float32 model, and whether the cache changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from modelkit import corpora
from modelkit.errors import CheckError, InputError
from modelkit.limits import at_least, at_most, judge
from modelkit.vocabulary import Subject, Verdict

VERSION = 1
NEEDS = ("text",)
EXAMPLES = {"quick": 4, "full": 24, "release": 400}
"""Texts that are answered."""
TOKENS = 24
"""The longest answer: what differs differs early, and after its first other token an answer is another answer."""
PROMISE = "greedy answers leave the float32 model's only where it was nearly undecided, and the cache changes nothing"
WORST = 5


@dataclass(frozen=True)
class Options:
    """How much of the float32 model's answers is kept, what is lost where they are left, and what the cache changes."""

    kept: float = at_least(0.25)
    loss_mean: float = at_most(1.0)
    cache_kl: float = at_most(5e-5)
    cache_same: float = at_least(0.5)


class Pair(NamedTuple):
    """The answers of both models to one text."""

    row: Mapping[str, str]
    ours: Any
    theirs: Any
    at: int
    """How many tokens they have in common before the first different one."""
    loss: float
    """Nats by which the float32 model rates the artifact's different token below its own; 0 if there is none."""

    @property
    def identical(self) -> bool:
        """Whether there is no different token."""
        return bool(self.ours.answer == self.theirs.answer)


class Cached(NamedTuple):
    """The artifact's own scores along an answer, with a cache beside without one: a float64 and a bool per token."""

    kl: Sequence[float]
    """Nats by which the distribution with a cache diverges from the one without."""
    same: Sequence[bool]
    """Whether the same token is the likeliest."""


def check(subject: Subject, limits: Options) -> Verdict:
    """Answer a few texts with both models, and read the artifact's answers again with a cache and without.

    Raises `CheckError` when the float32 model itself cannot answer.
    """
    rows = corpora.spread(subject.corpus, subject.examples)
    texts = [row["text"] for row in rows]
    reference, artifact = subject.open(subject.reference), subject.open(subject.artifact)
    theirs = reference.write(texts, max_tokens=TOKENS, temperature=0)
    try:
        ours = artifact.write(texts, max_tokens=TOKENS, temperature=0)
    except (CheckError, InputError) as error:
        # The float32 model has answered the same texts.
        return Verdict("greedy", "failed", f"the artifact cannot answer: {error.message}")
    pairs = [_pair(reference, row, *answers) for row, *answers in zip(rows, ours, theirs, strict=True)]
    if reason := next((reason for pair in pairs if (reason := _broken(pair))), None):
        return Verdict("greedy", "failed", reason)
    both = zip(artifact.scores(ours), artifact.scores(ours, cached=True), strict=True)
    return judge("greedy", _measured(pairs, [_cached(*scores) for scores in both]), limits, _worst(pairs))


def _pair(reference: Any, row: Mapping[str, str], ours: Any, theirs: Any) -> Pair:
    at = first_difference(ours.answer, theirs.answer)
    if at == min(len(ours.answer), len(theirs.answer)):
        return Pair(row, ours, theirs, at, 0.0)
    [scores] = reference.scores([theirs._replace(answer=theirs.answer[: at + 1])])
    return Pair(row, ours, theirs, at, float(scores[at].max() - scores[at][ours.answer[at]]))


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens two answers have in common from their beginning."""
    same = [one == other for one, other in zip(ours, theirs, strict=False)]
    return same.index(False) if False in same else len(same)


def _broken(pair: Pair) -> str | None:
    """What no rounding explains."""
    name, at, lengths = pair.row["id"], pair.at, (len(pair.ours.answer), len(pair.theirs.answer))
    if pair.ours.prompt != pair.theirs.prompt:
        return f"the artifact reads other tokens than the float32 model in text {name}"
    if lengths[0] > at == lengths[1]:
        return f"answering text {name} the float32 model ends with token {at}, and the artifact goes on after it"
    if lengths[1] > at == lengths[0]:
        return f"answering text {name} the artifact ends with token {at}, and the float32 model goes on after it"
    return None


def _cached(without: Any, with_: Any) -> Cached:
    from modelkit.generation.distributions import divergence, log_softmax  # noqa: PLC0415

    kl = divergence(log_softmax(without), log_softmax(with_))
    return Cached(kl.tolist(), (without.argmax(1) == with_.argmax(1)).tolist())


def _measured(pairs: Sequence[Pair], cached: Sequence[Cached]) -> dict[str, Any]:
    different = [pair.at + 1 for pair in pairs if not pair.identical]
    kl = [value for one in cached for value in one.kl]
    return {
        "identical": sum(pair.identical for pair in pairs) / len(pairs),
        "kept": sum(pair.at / len(pair.theirs.answer) for pair in pairs) / len(pairs),
        "loss_mean": sum(pair.loss for pair in pairs) / len(pairs),
        "first_different_mean": sum(different) / len(different) if different else None,
        "first_different_min": min(different, default=None),
        "cache_kl": sum(kl) / len(kl),
        "cache_same": sum(all(one.same) for one in cached) / len(cached),
        "answers": len(pairs),
    }


def _worst(pairs: Sequence[Pair]) -> tuple[dict[str, Any], ...]:
    different = sorted((pair for pair in pairs if not pair.identical), key=lambda pair: (-pair.loss, pair.row["id"]))
    return tuple({"id": pair.row["id"], "group": pair.row["group"], "token": pair.at + 1,
                  "of": len(pair.theirs.answer), "loss": round(pair.loss, 6), "text": pair.row["text"][:80],
                  "artifact": pair.ours.text[:200], "float32": pair.theirs.text[:200]}
                 for pair in different[:WORST])  # fmt: skip
