"""Threads: another number of them that gives other outputs fails. It is never skipped: every machine can start two.

No graph computes by another kernel because it has another thread, so the fault on a real artifact is one that such a
kernel would be: two threads give what the float32 model gives."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from modelkit import runtime
from modelkit.checks import threads
from modelkit.errors import CheckError
from modelkit.vocabulary import Subject, Verdict
from subjects import fake, good, texts

CORPUS = texts(*("word " * (1 + n % 30) for n in range(80)))


def of(lines: list[str]) -> np.ndarray:
    return np.array([[len(line), 100, 1] for line in lines], np.float32)


def verdict_of(several, corpus=CORPUS, task="feature-extraction", **limits) -> Verdict:
    """Of a model that answers as `of` does by one thread, and as `several` does by more."""

    def opened(artifact, threads=None):
        return SimpleNamespace(outputs=lambda lines, batch_size=32: (of if threads == 1 else several)(lines))

    return threads.check(fake(corpus=corpus, open=opened, task=task), threads.Options(**limits))


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def test_a_good_artifact_passes(subject):
    verdict = threads.check(subject, threads.Options())
    assert verdict.outcome == "passed"
    assert verdict.measured["one_minus_cosine"] < 1e-6
    assert verdict.measured["texts"] == 25


def test_an_artifact_that_two_threads_compute_otherwise_fails(subject):
    def opened(artifact, threads=None):
        return subject.open(artifact if threads == 1 else subject.reference, threads)

    verdict = threads.check(replace(subject, open=opened), threads.Options(cosine_min=0.99999999))
    assert verdict.outcome == "failed"
    assert verdict.measured["same_bits"] < 1


def test_two_sessions_of_different_threads_are_opened(subject):
    asked = []

    def opened(artifact, threads=None):
        asked.append(threads)
        return subject.open(artifact, threads)

    verdict = threads.check(replace(subject, open=opened), threads.Options())
    assert asked == [1, verdict.measured["threads"]]


@pytest.mark.parametrize(("cores", "used"), [(1, 2), (2, 2), (3, 3), (64, 4)])
def test_there_are_as_many_threads_as_cores_but_two_at_least(monkeypatch, cores, used):
    monkeypatch.setattr(runtime, "cpu", lambda: {"cores": cores})
    assert verdict_of(of).measured["threads"] == used


def test_the_same_bits_pass_and_are_counted():
    measured = dict(verdict_of(of).measured)
    assert measured.pop("threads") >= 2
    assert measured == {"cosine_min": 1, "one_minus_cosine": 0, "max_abs": 0, "same_bits": 1, "texts": 25}


def test_another_last_bit_passes_and_is_told():
    verdict = verdict_of(lambda lines: np.nextafter(of(lines), np.float32(np.inf)))
    assert verdict.outcome == "passed"
    assert verdict.measured["same_bits"] == 0
    assert verdict.measured["max_abs"] > 0


def test_the_sign_of_a_zero_is_another_bit():
    def zero(lines, sign=1):
        return of(lines) * np.float32([1, 1, 0]) * np.float32([1, 1, sign])

    def opened(artifact, threads=None):
        return SimpleNamespace(outputs=lambda lines, batch_size=32: zero(lines, 1 if threads == 1 else -1))

    found = threads.check(fake(corpus=CORPUS, open=opened, task="feature-extraction"), threads.Options())
    assert (found.measured["same_bits"], found.measured["max_abs"]) == (0, 0)


def test_other_vectors_fail_and_the_worst_lead():
    def several(lines):
        return of(lines) * [[1, -1 if len(line) > 120 else 1, 1] for line in lines]

    verdict = verdict_of(several)
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("cosine_min")
    distances = [case["one_minus_cosine"] for case in verdict.worst]
    assert distances == sorted(distances, reverse=True)
    assert len(distances) == 5


def test_texts_are_run_alone_and_in_batches():
    sizes = []

    def opened(artifact, threads=None):
        return SimpleNamespace(outputs=lambda lines, batch_size=32: sizes.append(batch_size) or of(lines))

    threads.check(fake(corpus=CORPUS, open=opened, task="feature-extraction"), threads.Options())
    assert sizes == [1, 8, 1, 8]


def test_a_difference_that_only_batches_show_is_enough():
    def opened(artifact, threads=None):
        def outputs(lines, batch_size=32):
            return of(lines) * np.float32(-1 if threads != 1 and batch_size > 1 else 1)

        return SimpleNamespace(outputs=outputs)

    found = threads.check(fake(corpus=CORPUS, open=opened, task="feature-extraction"), threads.Options())
    assert found.outcome == "failed"
    assert {case["alone"] for case in found.worst} == {False}


def test_logits_have_a_limit_of_their_own():
    assert verdict_of(of, task="text-generation").limits == {"cosine_min": None, "logits_min": 0.9995}


def test_a_number_that_is_not_finite_fails_and_its_text_is_named():
    def several(lines):
        made = of(lines)
        made[0] = np.nan
        return made

    verdict = verdict_of(several)
    assert (verdict.outcome, verdict.sentence) == ("failed", "what text t000 gets is not finite")
    json.dumps(asdict(verdict), allow_nan=False)


def test_a_model_that_cannot_be_run_is_an_error():
    def broken(lines):
        raise CheckError("onnxruntime could not run the model")

    with pytest.raises(CheckError, match="could not run"):
        verdict_of(broken)
