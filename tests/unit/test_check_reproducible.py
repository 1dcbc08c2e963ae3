"""Reproducible: the same bytes again pass, others fail by name, a build that fails is an error. It is never skipped:
there is a source to build from, or there would be no artifact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelkit.checks import reproducible
from modelkit.errors import CheckError, StageError
from modelkit.vocabulary import FileDigest, Subject, Verdict
from subjects import artifact, copied, good


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def verdict_of(subject: Subject) -> Verdict:
    return reproducible.check(subject, reproducible.Options())


def test_an_artifact_that_is_built_again_passes(subject):
    verdict = verdict_of(subject)
    assert verdict.outcome == "passed"
    assert verdict.measured["different"] == 0
    assert verdict.measured["bytes"] == subject.artifact.size


def test_an_artifact_that_was_built_otherwise_fails_and_names_the_file(subject, tmp_path):
    other = copied(subject, tmp_path / "other")
    model = other.artifact.folder / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    verdict = verdict_of(replace(other, artifact=artifact(other.artifact.folder)))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("built again, model.onnx has other bytes (1 of ")
    assert verdict.worst[0]["file"] == "model.onnx"


def test_a_file_that_only_one_of_the_two_has_fails(subject):
    again = {**subject.artifact.files, "extra.txt": FileDigest("0" * 64, 1)}
    verdict = verdict_of(replace(subject, again=lambda: again))
    assert verdict.outcome == "failed"
    assert verdict.worst == ({"file": "extra.txt", "was": None, "again": "0" * 64},)


def test_a_build_that_fails_the_second_time_is_an_error(subject):
    def again() -> None:
        raise StageError("the disk is full", hint="free some space")

    with pytest.raises(CheckError, match="could not be built again: the disk is full; free some space"):
        verdict_of(replace(subject, again=again))
