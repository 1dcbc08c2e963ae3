"""Greedy: answers that leave the float32 model's where it was undecided pass, others fail, and so does a cache that
changes anything. It is never skipped: a model that writes answers something. What cannot run is a float32 model that
does not answer itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import writers
from modelkit.checks import greedy
from modelkit.errors import CheckError
from modelkit.vocabulary import Subject, Verdict
from small_generators import END, PAD
from writers import Fault, Rule, Writer, chance, in_matrix, writing

OUTPUTS = {
    writers.LLAMA: "layers.1.self_attn.o_proj.weight/int8",
    writers.T5: "decoder.block.1.layer.0.SelfAttention.q.weight/int8",
}


def verdict_of(ours: Writer, theirs: Writer, *lines: str, **limits: float) -> Verdict:
    return greedy.check(writing(ours, theirs, *lines), replace(greedy.Options(), **limits))


def letters(text: str, ahead: float = 9) -> Rule:
    """Writes `text` after anything, then ends; a prompt is as long as "text 00"."""
    wanted = [*Writer().read(text), END]

    def rule(tokens: Sequence[int]) -> Any:
        scores = np.zeros(259)
        scores[wanted[min(len(tokens) - len("text 00"), len(wanted) - 1)]] = ahead
        return scores

    return rule


def test_the_same_answers_pass_and_nothing_is_lost():
    verdict = verdict_of(Writer(), Writer())
    assert verdict.outcome == "passed"
    told = {name: verdict.measured[name] for name in ("identical", "kept", "loss_mean", "cache_kl", "cache_same")}
    assert told == {"identical": 1, "kept": 1, "loss_mean": 0, "cache_kl": 0, "cache_same": 1}
    assert (verdict.measured["first_different_min"], verdict.worst) == (None, ())


def undecided(where: int, gap: float) -> tuple[Rule, Rule]:
    """Two rules for twenty tokens, of which the one at `where` is another one; they differ by little."""
    plain, other = letters("a" * 20), letters("a" * where + "b" * (20 - where))

    def theirs(tokens: Sequence[int]) -> Any:
        scores = plain(tokens)
        # Second to it, by `gap`, is what the other one writes.
        scores[Writer().read("b")] = scores.max() - gap
        return scores

    return other, theirs


@pytest.mark.parametrize("where", [0, 1, 7, 19])
def test_another_token_where_the_float32_model_is_undecided_costs_little(where):
    ours, theirs = undecided(where, 0.125)
    verdict = verdict_of(Writer(ours), Writer(theirs), kept=0)
    assert verdict.outcome == "passed"
    assert verdict.measured["loss_mean"] == pytest.approx(0.125)
    assert verdict.measured["kept"] == pytest.approx(where / 21)
    assert (verdict.measured["identical"], verdict.measured["first_different_mean"]) == (0, where + 1)


def test_another_token_where_the_float32_model_is_decided_fails():
    verdict = verdict_of(*map(Writer, undecided(12, 3.0)))
    assert (verdict.outcome, verdict.sentence) == ("failed", "loss_mean 3 is above 1")


def test_answers_that_differ_from_the_beginning_fail_however_undecided():
    verdict = verdict_of(*map(Writer, undecided(2, 0.1)))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("kept 0.0952")


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_the_first_difference_is_where_the_beginnings_stop_being_equal(one, other):
    at = greedy.first_difference(one, other)
    assert one[:at] == other[:at]
    assert at == min(len(one), len(other)) or one[at] != other[at]


def test_an_artifact_that_goes_on_after_the_end_fails():
    verdict = verdict_of(Writer(letters("abc"), ends=[PAD]), Writer(letters("abc")))
    assert (verdict.outcome, verdict.sentence) == (
        "failed", "answering text t000 the float32 model ends with token 4, and the artifact goes on after it"
    )  # fmt: skip


def test_an_artifact_that_ends_where_its_float32_model_does_not_fails():
    verdict = verdict_of(Writer(letters("abc")), Writer(letters("abc"), ends=[PAD]))
    assert (verdict.outcome, verdict.sentence) == (
        "failed", "answering text t000 the artifact ends with token 4, and the float32 model goes on after it"
    )  # fmt: skip


def test_an_artifact_that_reads_other_tokens_fails():
    ours = Writer()
    ours.read = lambda text: Writer().read(text.upper())  # type: ignore[method-assign]
    verdict = verdict_of(ours, Writer())
    assert verdict.outcome == "failed"
    assert verdict.sentence == "the artifact reads other tokens than the float32 model in text t000"


def test_a_cache_that_changes_the_scores_fails_though_it_changes_no_token():
    verdict = verdict_of(Writer(cached=lambda tokens: chance(tokens) * 0.9), Writer())
    assert verdict.measured["identical"] == 1
    assert verdict.measured["cache_same"] == 1
    assert verdict.sentence.startswith("cache_kl")
    assert verdict.outcome == "failed"


def test_a_cache_that_changes_tokens_is_counted_by_answers():
    # After a prompt that ends with 0 or 1 the cache is wrong.
    def cached(tokens: Sequence[int]) -> Any:
        return np.roll(chance(tokens), 1) if tokens[6] in Writer().read("01") else chance(tokens)

    verdict = verdict_of(Writer(cached=cached), Writer(), cache_kl=99)
    changed = sum(len(one.answer) > 1 for one in Writer().write(["text 00", "text 01", "text 10", "text 11"]))
    assert verdict.measured["cache_same"] == pytest.approx(1 - changed / 20)


def test_an_artifact_whose_scores_are_no_numbers_fails():
    verdict = verdict_of(Writer(lambda tokens: chance(tokens) * np.nan), Writer())
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("the artifact cannot answer: the model's scores for the next token are not num")


def test_scores_that_are_no_numbers_without_a_cache_fail():
    def rule(tokens: Sequence[int]) -> Any:
        return chance(tokens) * (np.nan if len(tokens) == 9 else 1)

    verdict = verdict_of(Writer(rule, cached=chance), Writer())
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("cache_kl nan is not a finite number")


def test_a_float32_model_that_does_not_answer_is_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="not numbers"):
        verdict_of(Writer(), Writer(lambda tokens: chance(tokens) * np.nan))


def test_the_five_worst_answers_are_told_with_both_texts():
    ours, theirs = undecided(12, 3.0)
    worst = verdict_of(Writer(ours), Writer(theirs)).worst
    assert len(worst) == 5
    assert worst[0] == {
        "id": "t000", "group": "tiny", "token": 13, "of": 21, "loss": pytest.approx(3), "text": "text 00",
        "artifact": "a" * 12 + "b" * 8, "float32": "a" * 20,
    }  # fmt: skip


def test_the_costliest_answers_come_first():
    mean = lambda tokens: letters("xyz")(tokens) if tokens[6] == Writer().read("7")[0] else letters("abc")(tokens)  # noqa: E731
    verdict = verdict_of(Writer(mean), Writer(letters("abc")))
    assert {row["text"] for row in verdict.worst} == {"text 07", "text 17"}


def test_as_many_texts_are_answered_as_the_profile_says_and_no_answer_is_long():
    ours = Writer(letters("a" * 100))
    subject = replace(writing(ours, Writer(letters("a" * 100))), examples=4)
    verdict = greedy.check(subject, greedy.Options())
    assert verdict.measured["answers"] == 4
    assert [(len(asked["texts"]), asked["max_tokens"], asked["temperature"]) for asked in ours.asked] == [(4, 24, 0)]


def test_a_verdict_is_json():
    for ours in (
        Writer(),
        Writer(lambda tokens: np.roll(chance(tokens), 1)),
        Writer(cached=lambda _: np.full(259, np.nan)),
    ):
        json.dumps(asdict(verdict_of(ours, Writer())), allow_nan=False)


# On models that have learned something


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tmp_path_factory.getbasetemp()


def promised(subject: Subject) -> Verdict:
    """The verdict with the limits that the manifest declares."""
    return greedy.check(subject, subject.variant.limits.get("greedy", greedy.Options()))


@pytest.mark.parametrize("examples", [greedy.EXAMPLES["quick"], 12])
@pytest.mark.parametrize("variant", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("name", [*writers.BOTH, "llama-files"])
def test_every_variant_of_a_learned_model_keeps_what_its_manifest_promises(base, name, variant, examples):
    verdict = promised(writers.learned(base, name, variant, examples))
    assert verdict.outcome == "passed", verdict.sentence
    assert verdict.measured["cache_same"] == 1


FAULTS: dict[str, Fault] = {
    "a token after a cache stands one place too far": writers.cache_off_by_one,
    "padding is read like text": writers.mask_dropped,
    "another id is said to end a text": writers.ends_elsewhere,
    "a matrix is transposed": lambda subject: in_matrix(OUTPUTS[subject.manifest.name], np.transpose)(subject),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", writers.BOTH)
def test_an_artifact_with_a_fault_in_it_fails(base, tmp_path, name, fault):
    subject = writers.learned(base, name, examples=greedy.EXAMPLES["quick"])
    assert promised(writers.spoiled(subject, tmp_path / "spoiled", FAULTS[fault])).outcome == "failed"
