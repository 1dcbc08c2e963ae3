"""Frontier: a variant that another beats in everything fails, one that leads in something passes without being timed, a
sibling that cannot be built is an error. It is never skipped: the float32 model is always a rival. No test asserts a
time: the slow artifact is a hundred times slower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelkit import timed
from modelkit.checks import frontier
from modelkit.errors import CheckError, StageError
from modelkit.vocabulary import Artifact, Choice, FileDigest, Subject, Verdict
from subjects import compared, copied, good, redrawn, slowed, texts


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    found = good(tmp_path_factory.getbasetemp())
    return replace(found, corpus=found.corpus[:6])


@pytest.fixture
def timings(monkeypatch) -> Callable[[dict[str, float]], list[list[str]]]:
    """Lets every artifact take so many seconds, by its digest; what is given back lists who was timed."""

    def install(seconds: dict[str, float]) -> list[list[str]]:
        asked: list[list[str]] = []

        def by_turns(artifacts, _):
            asked.append([one.digest for one in artifacts])
            return [[figures(seconds[one.digest]) for one in artifacts]]

        monkeypatch.setattr(timed, "by_turns", by_turns)
        return asked

    return install


def figures(alone: float, together: float | None = None) -> dict[str, Any]:
    """What a measuring process tells of a model that takes so many seconds for a text alone, and in a batch."""
    return {"alone": [alone], "texts_per_second": 1 / (together or alone), "memory": 1, "load": 1}


VECTORS = {"theirs": [0.0, 1.0], "near": [0.1, 1.0], "far": [0.5, 1.0], "further": [0.9, 1.0], "broken": [np.nan, 1.0]}


def standing(digest: str, size: int, *, siblings: dict[str, int], vectors: dict[str, str] | None = None) -> Subject:
    """A variant of `size` bytes beside siblings, each with the vectors called like it, and float32 of 100 bytes."""

    def artifact(name: str, nbytes: int) -> Artifact:
        return replace(plain.artifact, digest=name, files={"model.onnx": FileDigest(name, nbytes)})

    def outputs(which: Artifact):
        return np.array([VECTORS[(vectors or {}).get(which.digest, which.digest)]] * 2, np.float32)

    plain = compared([[0]], [[0]])
    return replace(
        plain, manifest=replace(plain.manifest, task=Choice("feature-extraction", None)),
        corpus=texts("one", "two"), outputs=outputs, artifact=artifact(digest, size),
        reference=artifact("theirs", 100), siblings=lambda: {name: artifact(name, n) for name, n in siblings.items()},
    )  # fmt: skip


def verdict_of(subject: Subject) -> Verdict:
    return frontier.check(subject, frontier.Options())


def test_a_variant_that_is_smaller_or_closer_than_each_other_passes_and_nothing_is_timed(timings):
    asked = timings({})
    verdict = verdict_of(standing("far", 50, siblings={"near": 60, "further": 40}))
    assert verdict.outcome == "passed"
    assert verdict.sentence == "none of 3 others is as small and as close"
    assert verdict.measured["timed"] == 0
    assert asked == []


def test_a_variant_that_another_beats_in_size_fidelity_and_speed_fails_by_name(timings):
    timings({"far": 1.0, "near": 0.5})
    verdict = verdict_of(standing("far", 50, siblings={"near": 40, "further": 10}))
    assert verdict.outcome == "failed"
    assert verdict.sentence == "near is no larger and no further from float32, and 2 times as fast"
    assert verdict.worst[0]["variant"] == "near"
    assert verdict.worst[0]["bytes"] == 40


def test_a_variant_that_is_faster_than_a_smaller_and_closer_one_passes(timings):
    asked = timings({"far": 0.5, "near": 1.0})
    verdict = verdict_of(standing("far", 50, siblings={"near": 40, "further": 10}))
    assert verdict.outcome == "passed"
    assert verdict.sentence.endswith("and 0.5 times as fast")
    assert asked == [["far", "near"]]


def test_of_several_rivals_the_fastest_is_told(timings):
    timings({"far": 1.0, "near": 0.9, "twin": 0.25})
    subject = standing("far", 50, siblings={"near": 40, "twin": 40}, vectors={"twin": "near"})
    assert verdict_of(subject).sentence.startswith("twin is no larger")


def test_the_float32_model_is_a_rival_of_a_variant_that_is_larger_and_slower(timings):
    timings({"near": 1.0, "theirs": 0.5})
    verdict = verdict_of(standing("near", 101, siblings={}))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("float32 is no larger")


def test_two_equal_variants_differ_by_noise_alone_and_pass(timings):
    timings({"far": 1.0, "twin": 0.97})
    assert verdict_of(standing("far", 50, siblings={"twin": 50}, vectors={"twin": "far"})).outcome == "passed"


def test_a_rival_that_is_faster_in_batches_only_does_not_dominate(monkeypatch):
    seconds = {"far": (1.0, 1.0), "near": (2.0, 0.1)}
    monkeypatch.setattr(timed, "by_turns", lambda artifacts, _: [
        [figures(*seconds[one.digest]) for one in artifacts]
    ])  # fmt: skip
    verdict = verdict_of(standing("far", 50, siblings={"near": 40}))
    assert (verdict.outcome, verdict.measured["faster"]) == ("passed", 0.5)


def test_vectors_that_are_not_finite_fail(timings):
    timings({})
    verdict = verdict_of(standing("broken", 50, siblings={}))
    assert verdict.outcome == "failed"
    assert "not finite" in verdict.sentence


def test_a_sibling_that_cannot_be_built_is_an_error():
    def siblings() -> None:
        raise StageError("int4 does not fit", hint="choose a smaller block")

    subject = replace(standing("far", 50, siblings={}), siblings=siblings)
    with pytest.raises(CheckError, match="there is nothing to compare with: int4 does not fit; choose a smaller block"):
        verdict_of(subject)


def test_a_real_artifact_with_needless_work_in_it_is_dominated_by_the_one_without(subject, tmp_path):
    slow = redrawn(copied(subject, tmp_path / "slow"), slowed)
    verdict = verdict_of(replace(slow, siblings=lambda: {"int8": subject.artifact}))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("int8 is no larger")
