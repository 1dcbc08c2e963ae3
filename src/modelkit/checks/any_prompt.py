"""Whatever a model is asked, it answers with a text, and with the same one when it is asked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from modelkit.errors import ModelkitError, StageError
from modelkit.vocabulary import Subject, Verdict

Case = tuple[Sequence[str], int, float]
"""Prompts, most tokens of an answer, and the temperature."""

VERSION = 1
NEEDS = ("text",)
PROMISE = "every prompt of legal length gets a text, the same one each time, and piece by piece the same"
EXAMPLES = {"quick": 10, "full": 100, "release": 500}
SEED = 7
TOGETHER = 8
"""Odd prompts that are answered at once."""
SHORT, PATIENT = 256, 100
"""No prompt has more tokens than this unless so many examples are tried; `any-text` reads longer ones."""


@dataclass(frozen=True)
class Options:
    """No limits: two texts are the same or they are not."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Let the model answer odd prompts, a long one, and those that are drawn, with a few tokens each."""
    from hypothesis import strategies as st  # noqa: PLC0415

    from modelkit import searching, texts  # noqa: PLC0415

    try:
        answers = _Answers(subject)
    except StageError as error:
        return Verdict("any-prompt", "failed", f"the finished folder cannot be used: {error.message}")
    words = sorted((row["text"] for row in subject.corpus), key=len)[:50]
    prompts = st.lists(texts.drawn(words), min_size=1, max_size=3)
    cases: Any = st.tuples(prompts, st.integers(1, 4), st.sampled_from([0.0, 0.7, 1.0]))
    found = searching.all_broken(_named(answers), cases, answers.reason, subject.examples)
    measured = {**answers.measured, "examples": subject.examples}
    if found:
        worst = tuple({"reason": one.reason, "again": answers.again(one.example)} for one in found)
        return Verdict("any-prompt", "failed", f"{worst[0]['reason']}: {worst[0]['again']}", measured, worst=worst)
    return Verdict("any-prompt", "passed", f"{measured['answers']} answers, twice the same", measured)


def _named(answers: _Answers) -> Iterator[Case]:
    from modelkit import texts  # noqa: PLC0415

    odd = texts.named()
    for start in range(0, len(odd), TOGETHER):
        yield odd[start : start + TOGETHER], 3, 0.0
    short, long = 0, answers.most + 1
    while long - short > 1:
        words = (short + long) // 2
        short, long = (words, long) if answers.takes("a " * words) else (short, words)
    yield ["a " * short, "a"], 2, 1.0


class _Answers:
    """What the model's `generate` and `stream` say, and what is wrong with it."""

    def __init__(self, subject: Subject) -> None:
        from modelkit.feeds import Listener  # noqa: PLC0415

        self._listener = Listener(subject.artifact.folder, subject.manifest.task)
        self._model = subject.open(subject.artifact)
        text = getattr(subject.manifest.task.options, "text", None)
        most: int = getattr(text, "max_tokens", SHORT)
        self.most = most if subject.examples >= PATIENT else min(most, SHORT)
        self.measured = {"answers": 0, "empty": 0, "refused": 0}

    def takes(self, prompt: str) -> bool:
        """Whether the prompt is one that the model takes, and not longer than is tried here."""
        try:
            return max(map(len, self._listener.ids([prompt])), default=0) <= self.most
        except ModelkitError:
            return False

    def reason(self, case: Case) -> str | None:
        """What is wrong with the answers, less the prompts that the model refuses; the tokenizer check looks at
        those."""
        prompts, most, temperature = [*filter(self.takes, case[0])], *case[1:]
        self.measured["refused"] += len(case[0]) - len(prompts)
        if not prompts:
            return None
        wishes: dict[str, Any] = {"max_tokens": most, "temperature": temperature, "seed": SEED}
        try:
            first, second = (self._model.generate(prompts, **wishes) for _ in range(2))
            alone, pieces = self._model.generate(prompts[0], **wishes), [*self._model.stream(prompts[0], **wishes)]
        except ModelkitError as error:
            return f"the model does not run ({error.message})"
        if len(first) != len(prompts) or not all(map(_is_text, [*first, alone])):
            return f"{len(prompts)} prompts are answered with {first!r}"
        self.measured["answers"] += len(first)
        self.measured["empty"] += first.count("")
        if first != second:
            return f"the answers are {first!r}, and then {second!r}"
        return None if "".join(pieces) == alone else f"the answer is {alone!r}, its pieces are {pieces!r}"

    def again(self, case: Case) -> str:
        """The expression that shows it, with `load` of `modelkit.model`: the two answers, the first prompt's alone,
        and its pieces. Prompts that the model refuses are left out, as they were."""
        from modelkit.texts import exact  # noqa: PLC0415

        prompts = ", ".join(map(exact, filter(self.takes, case[0])))
        wishes = f"w := dict(max_tokens={case[1]}, temperature={case[2]}, seed={SEED})"
        return (
            f"(m := load(folder)).generate(p := [{prompts}], **({wishes})), m.generate(p, **w), "
            "m.generate(p[0], **w), [*m.stream(p[0], **w)]"
        )


def _is_text(answer: object) -> bool:
    """Half a surrogate is no character, and goes into no file."""
    return isinstance(answer, str) and not any("\ud800" <= letter <= "\udfff" for letter in answer)
