"""How far the next-token distributions are from the float32 model's, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from modelkit import corpora
from modelkit.errors import CheckError
from modelkit.limits import at_least, at_most, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Column = npt.NDArray[np.float64]

VERSION = 1
NEEDS = ("logits", "text")
EXAMPLES = {"quick": 24, "full": 400, "release": 4000}
"""Texts of the corpus; more than it has are all of it."""
PROMISE = "token by token the model expects nearly what the float32 model expects, and mostly the same token first"
AT_ONCE = 2**22
"""Scores that are turned into float64 probabilities at a time."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """Mean KL divergence from the float32 model in nats per token, and the share of tokens of which both are surest."""

    kl_mean: float = at_most(0.05)
    same_top: float = at_least(0.895)


class Compared(NamedTuple):
    """Of each token of a text: float64[tokens] each."""

    kl: Column
    """Kullback-Leibler divergence in nats, P the float32 model, Q the artifact."""
    same: Column
    """1 where the largest score is of the same token."""
    theirs: Column
    """Log-probability that the float32 model gives the token that came."""
    ours: Column
    """The same of the artifact."""


def check(subject: Subject, limits: Options) -> Verdict:
    """Compare the scores of both models along the same tokens. A score that is not finite fails.

    Raises `CheckError` when there is nothing to compare with: no token that follows another, a float32 model whose
    scores are not finite.
    """
    import numpy as np  # noqa: PLC0415

    rows = corpora.spread(subject.corpus, subject.examples)
    reference, artifact = subject.open(subject.reference), subject.open(subject.artifact)
    passages = reference.passages([row["text"] for row in rows])
    theirs, ours = reference.scores(passages), artifact.scores(passages)
    found: list[Compared] = []
    for row, passage in zip(rows, passages, strict=True):
        # Nothing holds the scores of a text while those of the next are made: they may fill the memory.
        one = _along(row["id"], passage.answer, next(theirs), next(ours))
        if isinstance(one, str):
            return Verdict("divergence", "failed", one)
        found.append(one)
    whole = Compared(*map(np.concatenate, zip(*found, strict=True)))
    if not len(whole.kl):
        raise CheckError("no text of the corpus has a token that follows another", hint="write longer texts")
    return judge("divergence", measured(whole), limits, _worst(rows, passages, found))


def _along(name: str, tokens: Sequence[int], expected: Any, given: Any) -> Compared | str:
    """The comparison along one text, or why there is none."""
    import numpy as np  # noqa: PLC0415

    if not np.isfinite(expected).all():
        raise CheckError("the float32 model's own scores are not finite", hint="look at the weights")
    if given.shape != expected.shape:
        shapes = f"{list(given.shape)}, those of the float32 model {list(expected.shape)}"
        return f"the scores along text {name} have the shape {shapes}"
    if not np.isfinite(given).all():
        return f"a score along text {name} is not finite"
    return compared(expected, given, tokens)


def compared(expected: Any, given: Any, tokens: Sequence[int]) -> Compared:
    """Two float32[tokens, vocabulary] of scores, and the tokens that came."""
    import numpy as np  # noqa: PLC0415

    from modelkit.generation.distributions import divergence, log_softmax  # noqa: PLC0415

    columns: list[tuple[Any, ...]] = []
    for part in _parts(len(tokens), expected.shape[1]):
        log_p, log_q = (log_softmax(scores[part]) for scores in (expected, given))
        came = np.asarray(tokens[part], np.int64)[:, None]
        columns.append((
            divergence(log_p, log_q),
            log_p.argmax(1) == log_q.argmax(1),
            np.take_along_axis(log_p, came, 1)[:, 0],
            np.take_along_axis(log_q, came, 1)[:, 0],
        ))  # fmt: skip
    return Compared(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def measured(whole: Compared) -> dict[str, float]:
    """The figures over all tokens, each mean with the standard error it has if tokens are independent.

    The error of the ratio of perplexities is that of the mean difference of the two log-probabilities of each token,
    carried through the exponential (first order): both models read the same text, and what is hard about it cancels.
    So does llama.cpp's tool, https://github.com/ggml-org/llama.cpp/tree/master/tools/perplexity.
    """
    import numpy as np  # noqa: PLC0415

    kl, kl_error = _mean(whole.kl)
    loss, loss_error = _mean(-whole.ours)
    base, base_error = _mean(-whole.theirs)
    difference, difference_error = _mean(whole.theirs - whole.ours)
    # A model that was never taught such text can lose more nats per token than a perplexity has digits for.
    with np.errstate(over="ignore"):
        perplexity, base_perplexity, ratio = np.exp([loss, base, difference]).tolist()
    return {
        "kl_mean": kl,
        "kl_mean_error": kl_error,
        "kl_p99": float(np.percentile(whole.kl, 99)),
        "same_top": float(whole.same.mean()),
        "perplexity": perplexity,
        "perplexity_error": perplexity * loss_error,
        "float32_perplexity": base_perplexity,
        "float32_perplexity_error": base_perplexity * base_error,
        "perplexity_ratio": ratio,
        "perplexity_ratio_error": ratio * difference_error,
        "tokens": len(whole.kl),
    }


def _mean(values: Column) -> tuple[float, float]:
    """The mean and its standard error; of one value nobody knows an error, and 0 is told."""
    import numpy as np  # noqa: PLC0415

    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return float(values.mean()), error


def _parts(tokens: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, AT_ONCE // vocabulary)
    return (slice(start, start + size) for start in range(0, max(tokens, 1), size))


def _worst(
    rows: Sequence[Mapping[str, str]], passages: Sequence[Any], found: Sequence[Compared]
) -> tuple[dict[str, Any], ...]:
    """The tokens at which the two models differ most: which one of how many, of which text."""
    tokens = [(float(kl), number, place) for number, one in enumerate(found) for place, kl in enumerate(one.kl)]
    tokens.sort(key=lambda token: (-token[0], *token[1:]))
    return tuple({"id": rows[number]["id"], "group": rows[number]["group"], "kl": round(kl, 6), "token": place + 1,
                  "of": len(passages[number].answer), "same_top": bool(found[number].same[place]),
                  "text": passages[number].text[:80]} for kl, number, place in tokens[:WORST])  # fmt: skip
