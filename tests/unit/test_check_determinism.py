"""Determinism: three runs give the same bits, or the verdict says which did not; a process that fails is an error."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from hashlib import sha256
from itertools import count

import numpy as np
import onnx
import pytest

from modelkit.checks import determinism
from modelkit.errors import CheckError
from modelkit.vocabulary import Subject, Verdict
from subjects import copied, embedding, good, redrawn, texts

ZEROS = np.zeros((2, 3), np.float32)


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture
def second_process(tmp_path, monkeypatch):
    """Puts a script in the place of the second process's Python."""

    def install(*lines: str) -> None:
        script = tmp_path / "python"
        script.write_text("\n".join([f"#!{sys.executable}", "import json, sys", *lines]))
        script.chmod(0o755)
        monkeypatch.setattr(determinism.sys, "executable", str(script))

    return install


def verdict_of(subject: Subject) -> Verdict:
    return determinism.check(subject, determinism.Options())


def answer(vectors: np.ndarray) -> str:
    return f"sys.stdin.read(); print(json.dumps({{'sha256': '{sha256(vectors.tobytes()).hexdigest()}'}}))"


def test_a_good_artifact_passes_in_a_real_second_process(subject):
    verdict = verdict_of(subject)
    assert verdict.outcome == "passed"
    assert verdict.measured["first"] == verdict.measured["again"] == verdict.measured["second_process"]


def test_every_eighth_text_is_embedded(subject):
    assert verdict_of(subject).measured["texts"] == len(subject.corpus[::8])


def test_a_model_that_drifts_between_two_calls_fails(subject, second_process):
    second_process(answer(ZEROS))
    calls = count()
    drifting = embedding(lambda texts: ZEROS + np.float32(1e-30) * next(calls))
    verdict = verdict_of(replace(subject, open=drifting))
    assert verdict.outcome == "failed"
    assert verdict.sentence == "other bits again"


def test_a_second_process_with_other_bits_fails(subject):
    model = subject.open(subject.artifact)
    nudged = embedding(lambda texts: np.nextafter(model.embed(texts), np.float32(2)))
    verdict = verdict_of(replace(subject, open=nudged))
    assert verdict.outcome == "failed"
    assert verdict.sentence == "other bits second_process"
    assert verdict.measured["first"] == verdict.measured["again"] != verdict.measured["second_process"]


def test_a_sign_of_zero_is_another_bit(subject, second_process):
    second_process(answer(-ZEROS))
    assert verdict_of(replace(subject, open=embedding(lambda texts: ZEROS))).outcome == "failed"


def test_both_differences_are_named(subject, second_process):
    second_process(answer(ZEROS))
    calls = count(1)
    drifting = embedding(lambda texts: ZEROS + next(calls))
    assert verdict_of(replace(subject, open=drifting)).sentence == "other bits again and second_process"


def test_a_second_process_that_cannot_load_the_folder_is_an_error_with_its_last_line(subject, tmp_path):
    other = copied(subject, tmp_path / "copy")
    (other.artifact.folder / "modelkit.json").unlink()
    other = replace(other, open=embedding(lambda texts: ZEROS))
    with pytest.raises(CheckError, match=r"the second process failed: .*has no modelkit\.json"):
        verdict_of(other)


def test_a_second_process_that_dies_without_reading_is_an_error_and_no_broken_pipe(subject, second_process):
    second_process("sys.stdin.close()", "sys.exit('first line\\nout of memory')")
    # More text than a pipe holds.
    corpus = texts(*["a" * 100_000] * 64)
    silent = replace(subject, corpus=corpus, open=embedding(lambda texts: ZEROS))
    with pytest.raises(CheckError, match="the second process failed: out of memory"):
        verdict_of(silent)


def test_a_second_process_that_dies_without_a_word_is_an_error_that_says_so(subject, second_process):
    second_process("sys.exit(3)")
    with pytest.raises(CheckError, match="the second process failed: without a word"):
        verdict_of(replace(subject, open=embedding(lambda texts: ZEROS)))


def test_the_second_process_gets_the_texts_as_they_are(subject, second_process, tmp_path):
    seen = tmp_path / "seen.json"
    second_process("given = sys.stdin.read()", f"open({str(seen)!r}, 'w').write(given)", 'print(\'{"sha256": "0"}\')')
    corpus = texts("naïve\u2028line", *[""] * 7, "😀 end")
    verdict_of(replace(subject, corpus=corpus, open=embedding(lambda texts: ZEROS)))
    assert json.loads(seen.read_text()) == [row["text"] for row in corpus[::8]]


def test_the_second_process_has_all_its_texts_before_this_one_begins(subject, second_process, tmp_path):
    # So that both work at the same time: it ends its reading only when its input is closed.
    done = tmp_path / "done"
    second_process("sys.stdin.read()", f"open({str(done)!r}, 'w').close()", 'print(\'{"sha256": "0"}\')')

    def embed(texts):
        deadline = time.monotonic() + 30
        while not done.exists():
            assert time.monotonic() < deadline, "the second process still waits for its input"
            time.sleep(0.01)
        return ZEROS

    assert verdict_of(replace(subject, open=embedding(embed))).outcome == "failed"


def test_an_output_that_the_task_does_not_read_and_that_is_not_the_same_twice_fails(subject, tmp_path):
    def noisy(model: onnx.ModelProto) -> None:
        output = model.graph.output[0].name
        [maker] = [node for node in model.graph.node if output in node.output]
        maker.output[:] = ["quiet" if name == output else name for name in maker.output]
        for node in model.graph.node:
            node.input[:] = ["quiet" if name == output else name for name in node.input]
        noise = onnx.helper.make_node("RandomNormalLike", ["quiet"], ["noise"], scale=1e-4)
        where = list(model.graph.node).index(maker) + 1
        model.graph.node.insert(where, noise)
        model.graph.node.insert(where + 1, onnx.helper.make_node("Add", ["quiet", "noise"], [output]))

    verdict = verdict_of(redrawn(copied(subject, tmp_path / "noisy"), noisy))
    assert verdict.outcome == "failed"
    assert verdict.sentence == "other bits in last_hidden_state when the graph runs again"
