"""What a reader notices of a text without knowing what is right: it is there, it ends, and it fits what was asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from modelkit import corpora
from modelkit.errors import CheckError, InputError
from modelkit.generation import summaries
from modelkit.limits import at_least, at_most, judge
from modelkit.vocabulary import Subject, Verdict

VERSION = 1
NEEDS = ("text",)
PROFILE = "full"
EXAMPLES = {"full": 12, "release": 48}
"""Texts of the corpus that are answered, beside the summaries of `CODES`."""
TOKENS = 64
"""The longest answer; a summary is a sentence."""
LOOP, TIMES = 8, 4
"""An answer loops when up to eight tokens stand in it at least four times in a row."""
SAMPLED, SAMPLE_TOKENS, SEEDS = 3, 16, (1, 2, 3)
PROMISE = "answers are there, end, do not loop, fit their input as often as the float32 model's, and seeds repeat them"
WORST = 5
CODES = (
    "def make_report(prices, limit):\n    return [price for price in prices if price > limit]\n",
    "def process_game(guests):\n    return max(guests)\n",
    "def run_step(orders):\n    total = 0\n    for order in orders:\n        total += order.cost\n    return total\n",
    "def apply_page(words, label):\n    return label.join(words)\n",
    "def load_settings(path, encoding):\n    with open(path, encoding=encoding) as stream:\n"
    "        return json.load(stream)\n",
    "class Counter:\n    clicks = 0\n\n    def press(self):\n        self.clicks += 1\n",
    "function sumOfSquares(numbers) {\n  return numbers.reduce((sum, number) => sum + number * number, 0);\n}\n",
    "func isLeapYear(year int) bool {\n\treturn year%4 == 0 && (year%100 != 0 || year%400 == 0)\n}\n",
    "SELECT customer, COUNT(*) FROM invoices WHERE paid = 0 GROUP BY customer;\n",
)
"""What is summarized: functions and a query, as short as they come."""
NOT_NAMES = (
    "apply bool class count def for from func function group init int join json load make max number open process "
    "reduce return run select self sum where with"
)
"""Words in `CODES` that tell nothing: of the languages, of their libraries, and those that any summary may have."""


@dataclass(frozen=True)
class Options:
    """Shares of the answers that only the artifact spoils, and how many are different, beside the float32 model's."""

    empty: float = at_most(0.25)
    endless: float = at_most(0.25)
    looping: float = at_most(0.25)
    ungrounded: float = at_most(0.25)
    distinct: float = at_least(0.75)


class Spoiled(NamedTuple):
    """An answer with a fault that the float32 model's has not."""

    fault: str
    number: int
    """Which of the answers."""


def check(subject: Subject, limits: Options) -> Verdict:
    """Answer texts of the corpus and summarize code with both models, then sample a few answers by their seeds.

    Raises `CheckError` when the float32 model itself cannot answer.
    """
    rows = corpora.spread(subject.corpus, subject.examples)
    texts = [row["text"] for row in rows]
    names = [*(f"text {row['id']}" for row in rows), *(f"code {number}" for number in range(1, len(CODES) + 1))]
    reference, artifact = subject.open(subject.reference), subject.open(subject.artifact)
    theirs = _answers(reference, texts)
    try:
        ours = _answers(artifact, texts)
        problems = [
            *_read_otherwise(names, ours, theirs),
            *_long(artifact),
            *_unsteady(artifact, reference, texts),
        ]
    except (CheckError, InputError) as error:
        # The float32 model has answered the same texts.
        return Verdict("health", "failed", f"the artifact cannot answer: {error.message}")
    spoiled = [Spoiled(*one) for one in faults(ours) - faults(theirs)]
    verdict = judge("health", _measured(spoiled, ours, theirs), limits, _worst(sorted(spoiled), names, ours, theirs))
    if not problems:
        return verdict
    broken = [verdict.sentence] if verdict.outcome == "failed" else []
    return replace(verdict, outcome="failed", sentence="; ".join([*problems, *broken]))


def _answers(model: Any, texts: Sequence[str]) -> list[Any]:
    """Greedy ones: to each text, then to each of `CODES`."""
    return [
        *model.write(texts, max_tokens=TOKENS, temperature=0),
        *model.write_summaries(CODES, max_tokens=TOKENS, temperature=0),
    ]


def faults(answers: Sequence[Any]) -> set[tuple[str, int]]:
    """What is wrong with which answer; the last of them are summaries of `CODES`."""
    codes = dict(zip(range(len(answers) - len(CODES), len(answers)), CODES, strict=True))
    found = set()
    for number, one in enumerate(answers):
        wrong = {
            "empty": not one.text.strip(),
            "endless": not one.ended,
            "looping": loops(one.answer),
            "ungrounded": number in codes and not is_grounded(summaries.one_line(one.text), codes[number]),
        }
        found |= {(fault, number) for fault, is_so in wrong.items() if is_so}
    return found


def loops(tokens: Sequence[int]) -> bool:
    """Whether up to `LOOP` tokens stand in a row `TIMES` times: the text that greedy decoding degenerates to
    (Holtzman et al. 2020, https://arxiv.org/abs/1904.09751)."""
    for length in range(1, LOOP + 1):
        again = 0
        for token, before in zip(tokens[length:], tokens, strict=False):
            again = again + 1 if token == before else 0
            if again == length * (TIMES - 1):
                return True
    return False


def is_grounded(summary: str, code: str) -> bool:
    """Whether `summary` has a word of one of the names in `code`; `limits` is a word of `price_limit`."""
    return not _words(summary).isdisjoint(_words(code) - _words(NOT_NAMES))


def _words(text: str) -> set[str]:
    """The words of a text and of the names in it (snake_case, camelCase), small and without a plural's s."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)
    return {part.lower().removesuffix("s") for part in parts if len(part) > 2}


def _measured(spoiled: Sequence[Spoiled], ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, Any]:
    counted = {"empty": len(ours), "endless": len(ours), "looping": len(ours), "ungrounded": len(CODES)}
    different = [len({tuple(one.answer) for one in answers}) for answers in (ours, theirs)]
    return {
        **{name: sum(one.fault == name for one in spoiled) / total for name, total in counted.items()},
        "distinct": different[0] / different[1],
        **{
            f"float32_{name}": sum(fault == name for fault, _ in faults(theirs)) / total
            for name, total in counted.items()
        },
        "answers": len(ours),
    }


def _read_otherwise(names: Sequence[str], ours: Sequence[Any], theirs: Sequence[Any]) -> list[str]:
    """Tokenizer and chat template are no matter of precision: both models must have read the same tokens."""
    other = [name for name, one, same in zip(names, ours, theirs, strict=True) if one.prompt != same.prompt]
    return (
        [f"the artifact reads other tokens than the float32 model for {other[0]} ({len(other)} such)"] if other else []
    )


def _long(artifact: Any) -> list[str]:
    """`summarize` promises one line."""
    lines = artifact.summarize(list(CODES[:SAMPLED]), max_tokens=TOKENS)
    long = [line for line in lines if len(line.splitlines()) > 1]
    return [f"a summary has {len(long[0].splitlines())} lines"] if long else []


def _unsteady(artifact: Any, reference: Any, texts: Sequence[str]) -> list[str]:
    """Whether seeds draw the same again and can draw something else, and whether without chance nothing is drawn."""
    texts = texts[:SAMPLED]

    def drawn(model: Any, **wishes: Any) -> list[list[int]]:
        return [one.answer for one in model.write(texts, max_tokens=SAMPLE_TOKENS, **wishes)]

    # The same texts in one batch each time: another batch may round otherwise, and that is no matter of chance.
    greedy, problems = drawn(artifact, temperature=0), []
    if drawn(artifact, temperature=0, seed=SEEDS[0], top_p=0.5) != greedy:
        problems.append("at temperature 0 an answer is not the greedy one")
    if drawn(artifact, temperature=1, seed=SEEDS[0], top_k=1) != greedy:
        problems.append("drawn from the likeliest token alone, an answer is not the greedy one")
    first, *others = (drawn(artifact, temperature=1, seed=seed) for seed in SEEDS)
    if drawn(artifact, temperature=1, seed=SEEDS[0]) != first:
        problems.append(f"seed {SEEDS[0]} gives another answer the second time")
    if all(other == first for other in others):
        first, *others = (drawn(reference, temperature=1, seed=seed) for seed in SEEDS)
        if any(other != first for other in others):
            problems.append("every seed gives the same answer, as with the float32 model it does not")
    return problems


def _worst(
    spoiled: Sequence[Spoiled], names: Sequence[str], ours: Sequence[Any], theirs: Sequence[Any]
) -> tuple[dict[str, Any], ...]:
    return tuple({"fault": fault, "of": names[number], "artifact": ours[number].text[:200],
                  "float32": theirs[number].text[:200]} for fault, number in spoiled[:WORST])  # fmt: skip
