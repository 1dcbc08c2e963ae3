"""Cost: a slow artifact fails, a process that gives no answer is an error. It is never skipped: everything that runs
costs something. No test asserts a time; the faults are a hundred times larger than any noise."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from modelkit import corpora, timed, timing
from modelkit.checks import cost
from modelkit.errors import CheckError
from modelkit.vocabulary import Subject
from subjects import copied, good, learned, pictures, redrawn, slowed, texts

PYTHON = sys.executable
NO_LIMITS = cost.Options(None, None, None, None, None)
IMPORTED = """\
import json, sys
from pathlib import Path
from modelkit import timing
seen, peak_bytes = [], timing.peak_bytes
def noted():
    seen.append({*sys.modules})
    return peak_bytes()
timing.peak_bytes = noted
timing.measure(Path(sys.argv[1]), json.load(sys.stdin))
print(*sorted(name for name in seen[-1] - seen[0] if name.partition(".")[0] not in sys.stdlib_module_names))
"""
"""Measures as the check does, and prints what was imported between the first look at the memory and the last."""
RATIOS = ("latency_p50", "latency_p95", "batch_time", "memory", "load")


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    found = good(tmp_path_factory.getbasetemp())
    return replace(found, corpus=found.corpus[:6])


@pytest.fixture
def process(tmp_path, monkeypatch):
    """Puts a script in the place of the measuring process's Python."""

    def install(*lines: str) -> None:
        script = tmp_path / "python"
        script.write_text("\n".join([f"#!{PYTHON}", "import json, sys", "texts = json.load(sys.stdin)", *lines]))
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return install


def test_a_good_artifact_is_measured_beside_its_float32_model(subject):
    verdict = cost.check(subject, NO_LIMITS)
    assert verdict.outcome == "passed"
    assert all(verdict.measured[name] > 0 for name in RATIOS)
    assert verdict.measured["threads"] == 1
    assert len(verdict.worst) == 5


def test_an_artifact_with_needless_work_in_it_fails(subject, tmp_path):
    slow = redrawn(copied(subject, tmp_path / "slow"), slowed)
    verdict = cost.check(slow, cost.Options(memory=None, load=None))
    assert verdict.outcome == "failed"
    assert "latency_p50" in verdict.sentence


@pytest.mark.parametrize("name", RATIOS)
def test_each_ratio_has_a_limit_of_its_own(subject, process, name, tmp_path):
    theirs = subject.reference.folder
    ours = {"latency_p50": {"alone": "[9] * len(texts)"}, "latency_p95": {"alone": "[9] * len(texts)"},
            "batch_time": {"texts_per_second": "0.1"}, "memory": {"memory": "9000"}, "load": {"load": "9"}}  # fmt: skip
    process(*_beside(theirs, **ours[name]))
    limits = replace(NO_LIMITS, **{name: 2.0})
    assert cost.check(subject, limits).outcome == "failed"
    process(*_beside(theirs))
    assert cost.check(subject, limits).outcome == "passed"


def _beside(theirs, **ours: str) -> tuple[str, ...]:
    figures = {"load": "1", "alone": "[1] * len(texts)", "texts_per_second": "1", "memory": "1000"}
    told = {name: "{" + ", ".join(f"'{key}': {value}" for key, value in one.items()) + "}"
            for name, one in (("theirs", figures), ("ours", {**figures, **ours}))}  # fmt: skip
    return (f"print(json.dumps({told['theirs']} if sys.argv[-1] == {str(theirs)!r} else {told['ours']}))",)


def test_the_standard_lets_through_what_is_as_fast_as_float32(subject, process):
    process(*_beside(subject.reference.folder))
    verdict = cost.check(subject, cost.Options())
    assert verdict.outcome == "passed"
    assert verdict.margin == pytest.approx(1 / 3)


def test_the_texts_go_from_the_shortest_to_the_longest():
    rows = corpora.spread(texts(*("x" * n for n in range(1, 100))), cost.TEXTS)
    lengths = [len(row["text"]) for row in rows]
    assert len(lengths) == cost.TEXTS
    assert (lengths[0], lengths[-1]) == (1, 99)
    assert lengths == sorted(lengths)


def test_a_process_that_fails_is_an_error_with_its_last_line(subject, process):
    process("sys.exit('out of memory')")
    with pytest.raises(CheckError, match="a measuring process failed: out of memory"):
        cost.check(subject, cost.Options())


def test_a_process_that_answers_nonsense_is_an_error(subject, process):
    process("print('well')")
    with pytest.raises(CheckError, match="which is no measurement"):
        cost.check(subject, cost.Options())


def test_a_process_that_never_answers_is_an_error(subject, process, monkeypatch):
    monkeypatch.setattr(timed, "PATIENCE", 0.2)
    process("import time", "time.sleep(60)")
    with pytest.raises(CheckError, match=r"gave no answer within 0\.2 s"):
        cost.check(subject, cost.Options())


def test_every_text_is_timed_alone_and_all_of_them_together(subject):
    found = timing.measure(subject.artifact.folder, [row["text"] for row in subject.corpus])
    assert len(found["alone"]) == len(subject.corpus)
    assert all(figure > 0 for figure in (*found["alone"], found["load"], found["texts_per_second"], found["memory"]))
    assert json.loads(json.dumps(found)) == found


def picture() -> str:
    """A red image as a text of the corpus."""
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("kind", ["vectors", "images", "labels", "text"])
def test_every_library_is_there_before_memory_and_loading_are_measured(tmp_path_factory, kind: str):
    """Else the same constant on both sides hides that the artifact takes more than its float32 model."""
    base = tmp_path_factory.getbasetemp()
    subject, answered = {
        "vectors": lambda: (good(base), ["a cat"]),
        "images": lambda: (pictures(base), ["a cat", picture()]),
        "labels": lambda: (learned(base, "deberta-entailment"), ["a cat\nanimals\nhouses"]),
        "text": lambda: (learned(base, "llama-summaries"), ["a cat"]),
    }[kind]()
    command = [PYTHON, "-P", "-c", IMPORTED, str(subject.artifact.folder)]
    done = subprocess.run(command, input=json.dumps(answered), capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
