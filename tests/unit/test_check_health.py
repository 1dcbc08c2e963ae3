"""Health: answers as sound as the float32 model's pass, spoiled ones fail, and a promise without "nearly" is kept to
the letter. It is never skipped: a model that writes answers something. What cannot run is a float32 model that does not
answer itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import writers
from modelkit.checks import health
from modelkit.errors import CheckError
from modelkit.generation.answers import Written
from modelkit.vocabulary import Subject, Verdict
from small_generators import END, PAD
from writers import Rule, Writer, chance, writing


def verdict_of(ours: Writer, theirs: Writer) -> Verdict:
    return health.check(writing(ours, theirs), health.Options())


def saying(*texts: str, ends: bool = True) -> Rule:
    """Writes one of `texts`, by the prompt's length, and ends, or begins again."""
    wanted = [[*(Writer().read(text) if text else []), *([END] if ends else [])] for text in texts]
    codes = [Writer().read(f"# {code}") for code in health.CODES]
    text = len(Writer().read("text 00"))

    def rule(tokens: Sequence[int]) -> Any:
        begin = next((len(code) for code in codes if [*tokens[: len(code)]] == code), text)
        answer = wanted[begin % len(wanted)]
        scores = np.zeros(259)
        scores[answer[(len(tokens) - begin) % len(answer)]] = 30
        return scores

    return rule


SOUND = saying("sum of it", "and more", "a price")


def test_a_model_is_as_sound_as_itself():
    verdict = verdict_of(Writer(), Writer())
    assert verdict.outcome == "passed"
    assert verdict.measured["float32_looping"] > 0
    assert {verdict.measured[name] for name in ("empty", "endless", "looping", "ungrounded")} == {0}
    assert verdict.measured["distinct"] == 1


def test_a_float32_model_that_is_not_sound_itself_asks_nothing_of_the_artifact():
    verdict = verdict_of(Writer(saying("abc", ends=False)), Writer(saying("abc", ends=False)))
    assert verdict.outcome == "passed"
    assert (verdict.measured["float32_endless"], verdict.measured["float32_looping"]) == (1, 1)


def test_empty_answers_fail():
    verdict = verdict_of(Writer(saying("")), Writer(SOUND))
    assert verdict.outcome == "failed"
    assert "empty 1 is above 0.25" in verdict.sentence


def test_white_space_is_empty():
    assert verdict_of(Writer(saying("  ", "\n")), Writer(SOUND)).measured["empty"] == 1


def test_answers_without_end_fail():
    verdict = verdict_of(Writer(SOUND, ends=[PAD]), Writer(SOUND))
    assert verdict.outcome == "failed"
    assert "endless 1 is above 0.25" in verdict.sentence


def test_answers_that_loop_fail_though_they_end():
    looping = saying("and and and and ", "oooo", "so so so so ")
    verdict = verdict_of(Writer(looping), Writer(SOUND))
    assert verdict.measured["endless"] == 0
    assert "looping 1 is above 0.25" in verdict.sentence


@pytest.mark.parametrize(
    ("tokens", "is_one"),
    [
        ([], False), ([1, 1, 1], False), ([1, 1, 1, 1], True), ([5, 1, 1, 1, 1, 5], True),
        ([1, 2] * 3, False), ([1, 2] * 4, True), ([1, 2] * 3 + [1], False), ([1, 2, 1, 2, 3, 1, 2, 1, 2], False),
        ([*range(8)] * 4, True), ([*range(9)] * 4, False),
    ],
)  # fmt: skip
def test_a_loop_is_up_to_eight_tokens_four_times_in_a_row(tokens, is_one):
    assert health.loops(tokens) == is_one


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=8), st.lists(st.integers(3, 9)), st.lists(st.integers(3, 9)),
    st.integers(4, 9),
)  # fmt: skip
def test_a_loop_is_found_wherever_it_stands(piece, before, after, times):
    assert health.loops([*before, *piece * times, *after])


@given(st.lists(st.integers(0, 2), max_size=30))
def test_what_is_said_to_loop_does(tokens):
    by_hand = any(
        tokens[start : start + length] * 4 == tokens[start : start + 4 * length]
        for length in range(1, 9)
        for start in range(len(tokens) - 4 * length + 1)
    )
    assert health.loops(tokens) == by_hand


def test_the_same_answer_to_everything_fails_where_the_float32_model_tells_inputs_apart():
    verdict = verdict_of(Writer(saying("a price")), Writer())
    assert verdict.outcome == "failed"
    assert "distinct" in verdict.sentence


def named(tokens: Sequence[int]) -> Any:
    """Says something of the code: what stands in it after its first bracket or blank."""
    return NAMED(tokens)


NAMED = saying("prices guests orders words stream clicks squares leap invoices")


def test_summaries_that_do_not_speak_of_the_code_fail_where_the_float32_models_do():
    verdict = verdict_of(Writer(saying("it does something")), Writer(named))
    assert verdict.measured["float32_ungrounded"] == 0
    assert verdict.measured["ungrounded"] == 1
    assert verdict.outcome == "failed"


@pytest.mark.parametrize(
    ("summary", "code", "grounded"),
    [
        ("Returns the leap years.", "func isLeapYear(year int) bool", True),
        ("Keeps what is above the limit.", "def keep(price_limit):", True),
        ("Adds a price to it.", "def f(prices):", True),
        ("Reads HTTP.", "def parseHTTPBody(x):", True),
        ("Returns a number.", "def f(x):\n    return max(x)", False),
        ("Processes the classes.", "class X:\n    def process(self):", False),
        ("", "def total(x):", False),
        ("Is it in an array?", "def is_in(an):", False),
    ],
)
def test_a_summary_is_grounded_when_it_has_a_word_of_a_name_in_the_code(summary, code, grounded):
    assert health.is_grounded(summary, code) == grounded


def test_every_piece_of_code_has_a_name_to_speak_of():
    assert all(health._words(code) - health._words(health.NOT_NAMES) for code in health.CODES)


# Promises without "nearly"


class Wrong(Writer):
    """A writer that keeps one promise too few."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self._change = change

    def write(self, prompts: Sequence[str], **wishes: Any) -> list[Written]:
        return super().write(prompts, **self._change(dict(wishes), len(self.asked)))


def test_a_seed_that_gives_another_answer_the_second_time_fails():
    verdict = verdict_of(Wrong(lambda wishes, times: {**wishes, "seed": times}), Writer())
    assert verdict.outcome == "failed"
    assert "seed 1 gives another answer the second time" in verdict.sentence


def test_seeds_that_change_nothing_fail_where_the_float32_models_do():
    verdict = verdict_of(Wrong(lambda wishes, _: {**wishes, "seed": 1}), Writer())
    assert verdict.sentence == "every seed gives the same answer, as with the float32 model it does not"


def test_seeds_may_change_nothing_where_there_is_nothing_to_choose():
    assert verdict_of(Writer(SOUND), Writer(SOUND)).outcome == "passed"


def test_chance_at_temperature_0_fails():
    warm = lambda wishes, _: {**wishes, "temperature": 1 if "top_p" in wishes else wishes.get("temperature")}  # noqa: E731
    verdict = verdict_of(Wrong(warm), Writer())
    assert (verdict.outcome, verdict.sentence) == ("failed", "at temperature 0 an answer is not the greedy one")


def test_another_token_than_the_likeliest_one_fails():
    wider = lambda wishes, _: {**wishes, "top_k": 40} if "top_k" in wishes else wishes  # noqa: E731
    assert verdict_of(Wrong(wider), Writer()).sentence == (
        "drawn from the likeliest token alone, an answer is not the greedy one"
    )


def test_a_summary_of_two_lines_fails():
    ours = Writer()
    ours.summarize = lambda codes, **wishes: ["One line.", "Two\nlines."]  # type: ignore[method-assign]
    assert (verdict_of(ours, Writer()).outcome, verdict_of(ours, Writer()).sentence) == (
        "failed", "a summary has 2 lines"
    )  # fmt: skip


def test_an_artifact_that_is_asked_in_other_tokens_fails():
    ours = Writer()
    ours.write_summaries = ours.write  # type: ignore[method-assign]
    verdict = verdict_of(ours, Writer())
    assert verdict.outcome == "failed"
    assert "reads other tokens than the float32 model for code 1 (9 such)" in verdict.sentence


def test_a_broken_promise_and_a_broken_limit_are_both_told():
    ours = Writer(saying(""))
    ours.summarize = lambda codes, **wishes: ["Two\nlines."]  # type: ignore[method-assign]
    sentence = verdict_of(ours, Writer(SOUND)).sentence
    assert "a summary has 2 lines; empty 1 is above" in sentence


# The verdict


def test_an_artifact_whose_scores_are_no_numbers_fails():
    verdict = verdict_of(Writer(lambda tokens: chance(tokens) * np.nan), Writer())
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("the artifact cannot answer: the model's scores for the next token are not num")


def test_a_float32_model_that_does_not_answer_is_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="not numbers"):
        verdict_of(Writer(), Writer(lambda tokens: chance(tokens) * np.nan))


def test_spoiled_answers_are_told_with_both_texts():
    worst = verdict_of(Writer(saying("oooo")), Writer(saying("a price"))).worst
    assert len(worst) == 5
    assert worst[0] == {"fault": "looping", "of": "text t000", "artifact": "oooo", "float32": "a price"}


def test_as_many_texts_are_answered_as_the_profile_says_beside_the_code():
    ours = Writer()
    verdict = health.check(writing(ours, Writer(), examples=6), health.Options())
    assert verdict.measured["answers"] == 6 + len(health.CODES)
    assert all(asked["max_tokens"] <= 64 for asked in ours.asked)


def test_a_verdict_is_json():
    for ours in (Writer(), Writer(saying("")), Writer(lambda tokens: chance(tokens) * np.nan)):
        json.dumps(asdict(verdict_of(ours, Writer())), allow_nan=False)


# On models that have learned something


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tmp_path_factory.getbasetemp()


def promised(subject: Subject) -> Verdict:
    """The verdict with the limits that the manifest declares."""
    return health.check(subject, subject.variant.limits.get("health", health.Options()))


@pytest.mark.parametrize("variant", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("name", writers.BOTH)
def test_every_variant_of_a_learned_model_keeps_what_its_manifest_promises(base, name, variant):
    verdict = promised(writers.learned(base, name, variant))
    assert verdict.outcome == "passed", verdict.sentence
    # What it was taught is in the code, and it says so.
    assert verdict.measured["float32_ungrounded"] < 0.5


@pytest.mark.parametrize("name", writers.BOTH)
def test_an_artifact_that_does_not_know_its_end_fails(base, tmp_path, name):
    subject = writers.spoiled(writers.learned(base, name), tmp_path / "spoiled", writers.ends_elsewhere)
    assert "endless" in promised(subject).sentence


def test_an_artifact_with_another_chat_template_fails(base, tmp_path):
    subject = writers.learned(base, writers.LLAMA)
    verdict = promised(writers.spoiled(subject, tmp_path / "spoiled", writers.asks_as_nobody_taught))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("the artifact reads other tokens than the float32 model for code 1 (9 such)")


@pytest.mark.parametrize(("name", "table"), [(writers.LLAMA, "embed_tokens"), (writers.T5, "shared")])
def test_an_artifact_whose_vocabulary_is_off_by_one_fails(base, tmp_path, name, table):
    rolled = writers.in_matrix(f"{table}.weight/int8", lambda values: np.roll(values, 1, 0))
    verdict = promised(writers.spoiled(writers.learned(base, name), tmp_path / "spoiled", rolled))
    assert {"looping", "endless", "ungrounded"} <= {*verdict.sentence.replace(";", "").split()}
