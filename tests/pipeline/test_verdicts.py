"""conformance.py over a real build: which verdicts are found again, and which are made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stand_ins
from modelkit import conformance, corpora, kinds, lock, locking, manifest, pipeline
from modelkit.errors import ArtifactError, CheckError, InputError, ManifestError
from modelkit.store import Store
from modelkit.vocabulary import Artifact, Fetching, Subject, Verdict

CHECK = '''\
"""A check of the project's own, as cheap as can be: the model file's name."""

from dataclasses import dataclass, field
from modelkit.vocabulary import Verdict

VERSION = {version}
PROMISE = "the model is called model.onnx"


@dataclass(frozen=True)
class Options:
    """`files` is how many there may be."""

    files: int = field(default=9, metadata={{"sense": "<="}})


def check(subject, limits):
    """Counts."""
    count = len(subject.artifact.files)
    return Verdict("counted", "passed" if count <= limits.files else "failed", "counted", {{"files": count}})
'''


@pytest.fixture
def project(tmp_path: Path, store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that is judged by two quick checks: `budget`, and one of the project's own."""
    path = stand_ins.project(tmp_path / "project")
    checks = path.parent / "conformance" / "checks"
    checks.mkdir()
    (checks / "counted.py").write_text(CHECK.format(version=1))
    monkeypatch.setattr(conformance, "plan", lambda manifest, profile: ("budget", "counted"))
    return path


@pytest.fixture
def ran(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The checks that really ran."""
    seen: list[str] = []
    for name in ("budget", "counted"):
        module = kinds.load("checks", name, project.parent)

        def check(
            subject: Subject, limits: Any, name: str = name, original: Callable[..., Verdict] = module.check
        ) -> Verdict:
            seen.append(name)
            return original(subject, limits)

        monkeypatch.setattr(module, "check", check)
    return seen


def build_of(path: Path, variant: str = "int8") -> tuple[pipeline.Build, Artifact]:
    loaded = manifest.load(path)
    build = pipeline.Pins(Store()).prepare(loaded, loaded.variants[variant], lock.read(path), Fetching(path.parent))
    return build, pipeline.build(build)


def examined(path: Path, variant: str = "int8") -> list[Verdict]:
    return conformance.examine(conformance.Examination(*build_of(path, variant)))


def test_a_verdict_on_the_other_variants_is_taken_anew_when_one_of_them_changes_and_builds_it(project: Path) -> None:
    counted = project.parent / "conformance" / "checks" / "counted.py"
    text = CHECK.format(version=1).replace('"passed" if', '"passed" if subject.siblings().keys() == {"int4"} and')
    counted.write_text(text.replace("PROMISE =", "SIBLINGS = True\nPROMISE ="))
    assert outcomes(examined(project))["counted"] == ("passed", False)
    assert outcomes(examined(project))["counted"] == ("passed", True)
    edit(project, "table_block: 32", "table_block: 16")
    assert outcomes(examined(project))["counted"] == ("passed", False)


def test_a_check_that_looks_at_the_other_variants_and_does_not_say_so_is_an_error(project: Path) -> None:
    counted = project.parent / "conformance" / "checks" / "counted.py"
    counted.write_text(CHECK.format(version=1).replace('"passed" if', '"passed" if subject.siblings() and'))
    verdict = examined(project)[1]
    assert verdict.outcome == "errored"
    assert "counted looks at the other variants and does not say so; give it SIBLINGS = True" in verdict.sentence


def outcomes(verdicts: list[Verdict]) -> dict[str, tuple[str, bool]]:
    return {verdict.check: (verdict.outcome, verdict.reused) for verdict in verdicts}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def records(store: Path) -> list[Path]:
    return sorted(store.glob("records/*/*.json"))


LIMITED = "    budget: 1 MB\n  int4"


def test_all_checks_of_the_task_on_the_shelf_and_in_the_project_are_planned(tmp_path: Path) -> None:
    path = stand_ins.project(tmp_path / "project")
    (path.parent / "conformance" / "checks").mkdir()
    (path.parent / "conformance" / "checks" / "counted.py").write_text(CHECK.format(version=1))
    wanted = [
        kind
        for kind in kinds.names("checks")
        if set(getattr(kinds.load("checks", kind), "NEEDS", ())) <= {"vectors"}
        and getattr(kinds.load("checks", kind), "PROFILE", "quick") == "quick"
    ]
    assert conformance.plan(manifest.load(path)) == tuple(sorted([*wanted, "counted"]))


def test_a_second_examination_finds_every_pass_again(project: Path, ran: list[str]) -> None:
    first = examined(project)
    assert ran == ["budget", "counted"]
    second = examined(project)
    assert ran == ["budget", "counted"]
    assert outcomes(second) == {"budget": ("passed", True), "counted": ("passed", True)}
    assert [replace(verdict, reused=False) for verdict in second] == first


def test_each_variant_is_judged_by_itself(project: Path, ran: list[str]) -> None:
    examined(project, "int8")
    examined(project, "int4")
    assert ran == ["budget", "counted"] * 2


def test_a_changed_limit_runs_that_check_alone(project: Path, ran: list[str]) -> None:
    examined(project)
    ran.clear()
    edit(project, LIMITED, "    budget: 1 MB\n    limits: {counted: {files: 8}}\n  int4")
    assert outcomes(examined(project)) == {"budget": ("passed", True), "counted": ("passed", False)}
    assert ran == ["counted"]


def test_a_check_that_changed_runs_again(project: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    examined(project)
    ran.clear()
    monkeypatch.setattr(kinds.load("checks", "budget"), "VERSION", 99)
    examined(project)
    assert ran == ["budget"]


def test_other_bytes_are_judged_anew(project: Path, ran: list[str]) -> None:
    examined(project)
    ran.clear()
    edit(project, "scheme: w8a8-per-token", "scheme: fp16")
    examined(project)
    assert ran == ["budget", "counted"]


def test_another_tool_or_processor_is_judged_anew(
    project: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    examined(project)
    ran.clear()
    monkeypatch.setattr(conformance.runtime, "cpu", lambda: {"machine": "abacus"})
    examined(project)
    assert ran == ["budget", "counted"]


def test_a_failure_is_never_found_again(project: Path, ran: list[str], store_folder: Path) -> None:
    edit(project, LIMITED, "    budget: 1 MB\n    limits: {counted: {files: 1}}\n  int4")
    for _ in range(2):
        assert outcomes(examined(project))["counted"] == ("failed", False)
    assert ran == ["budget", "counted", "counted"]


def test_an_edited_record_is_not_trusted(project: Path, ran: list[str], store_folder: Path) -> None:
    examined(project)
    ran.clear()
    for path in records(store_folder):
        path.write_text(path.read_text().replace("passed", "perfect"))
    build, artifact = build_of(project)
    assert outcomes(conformance.examine(conformance.Examination(build, artifact))) == {
        "budget": ("passed", False),
        "counted": ("passed", False),
    }
    assert ran == ["budget", "counted"]
    assert len(build.store.dropped) == 2


def test_a_record_under_another_key_is_not_trusted(project: Path, ran: list[str], store_folder: Path) -> None:
    examined(project)
    ran.clear()
    one, other = records(store_folder)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    examined(project)
    assert ran == ["budget", "counted"]


def test_a_check_that_could_not_run_is_an_error_with_the_reason(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: Subject, limits: Any) -> Verdict:
        raise CheckError("no abacus", hint="buy one")

    monkeypatch.setattr(kinds.load("checks", "budget"), "check", broken)
    [budget, counted] = examined(project)
    assert (budget.outcome, budget.sentence) == ("errored", "tiny/int8: budget could not run: no abacus; buy one")
    assert counted.outcome == "passed"


def test_a_text_of_the_corpus_that_the_model_refuses_is_an_error_of_the_check(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(subject: Subject, limits: Any) -> Verdict:
        raise InputError("prompt 3 of 20 is empty", hint="give the model a text to go on from")

    monkeypatch.setattr(kinds.load("checks", "budget"), "check", refused)
    with pytest.raises(CheckError, match="budget could not run: prompt 3 of 20 is empty; give the model a text"):
        conformance.Examination(*build_of(project)).run("budget")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "x", "group": "g", "text": "\\ud800"}', "UnicodeEncodeError: .*surrogates not allowed"),
        ('{"id": "x", "group": "g", "text": 5}', "TypeError"),
        ('{"id": "x", "group": "g"}', "KeyError: 'text'"),
        ("{", "JSONDecodeError"),
    ],
)
def test_a_line_that_is_no_row_of_a_corpus_is_told_with_its_place(project: Path, line: str, told: str) -> None:
    corpus = project.parent / "conformance" / "corpora" / "feature-extraction.jsonl"
    corpus.write_text(f"{corpus.read_text()}{line}\n")
    number = len(corpus.read_text().splitlines())
    with pytest.raises(CheckError, match=rf"feature-extraction\.jsonl:{number}:1: is no row of a corpus \({told}"):
        corpora.rows(manifest.load(project))


def test_an_id_that_stands_twice_in_a_corpus_is_told(project: Path) -> None:
    corpus = project.parent / "conformance" / "corpora" / "feature-extraction.jsonl"
    first = corpus.read_text().splitlines()[0]
    corpus.write_text(f"{corpus.read_text()}{first}\n")
    with pytest.raises(CheckError, match=f"has the id '{json.loads(first)['id']}' more than once"):
        corpora.rows(manifest.load(project))


def test_a_folder_in_the_place_of_a_corpus_is_told(project: Path) -> None:
    corpus = project.parent / "conformance" / "corpora" / "feature-extraction.jsonl"
    corpus.unlink()
    corpus.mkdir()
    with pytest.raises(CheckError, match=r"feature-extraction\.jsonl: cannot be read \(Is a directory\)"):
        corpora.rows(manifest.load(project))


@pytest.fixture
def plan(tmp_path: Path):
    """Plans for a stand-in whose manifest is edited first."""
    path = stand_ins.project(tmp_path / "planned")

    def plan(edited: Callable[[str], str], profile: str = "quick") -> tuple[str, ...]:
        path.write_text(edited(path.read_text()))
        return conformance.plan(manifest.load(path), profile)

    return plan


def test_limits_of_a_check_that_never_looks_at_the_model_are_refused(plan) -> None:
    with pytest.raises(
        ManifestError, match=r"tiny\.yaml:\d+:\d+: logits never looks at a model for feature-extraction"
    ):
        plan(lambda text: text.replace(LIMITED, "    budget: 1 MB\n    limits: {logits: {}}\n  int4"))


def test_an_excuse_for_a_check_that_never_looks_at_the_model_is_refused(plan) -> None:
    excuse = EXCUSE.format(until="2099-01-01").replace("counted", "logits")
    with pytest.raises(ManifestError, match=r"logits never looks at a model for feature-extraction; take this out"):
        plan(lambda text: text + excuse)


def test_an_excuse_that_is_over_is_told_by_a_profile_that_does_not_look_for_it(plan) -> None:
    excuse = EXCUSE.format(until="2020-01-01").replace("counted", "reproducible")
    with pytest.raises(ManifestError, match=r"the excuse ended on 2020-01-01; look with the profile full, then"):
        plan(lambda text: text + excuse)
    assert "reproducible" in plan(lambda text: text, "full")


def test_two_excuses_for_one_failure_are_refused(plan) -> None:
    excuse = EXCUSE.format(until="2099-01-01").replace("counted", "budget")
    with pytest.raises(ManifestError, match=r"known_failures\.1: int8 budget is excused above already"):
        plan(lambda text: text + excuse + excuse.split("\n", 1)[1])


EXCUSE = 'known_failures:\n  - {{variant: int8, check: counted, because: "it counts badly", until: {until}}}\n'


def test_a_known_failure_is_excused_with_its_reason(project: Path) -> None:
    edit(project, LIMITED, "    budget: 1 MB\n    limits: {counted: {files: 1}}\n  int4")
    project.write_text(project.read_text() + EXCUSE.format(until="2099-01-01"))
    verdict = examined(project)[1]
    assert (verdict.outcome, verdict.sentence) == (
        "excused",
        "known failure until 2099-01-01, it counts badly: counted",
    )


def test_a_known_failure_that_passes_fails_even_when_the_pass_is_on_record(project: Path) -> None:
    examined(project)
    project.write_text(project.read_text() + EXCUSE.format(until="2099-01-01"))
    verdict = examined(project)[1]
    assert verdict.outcome == "failed"
    assert "this known failure passes now; remove it from known_failures" in verdict.sentence


def test_an_excuse_that_is_over_fails(project: Path) -> None:
    edit(project, LIMITED, "    budget: 1 MB\n    limits: {counted: {files: 1}}\n  int4")
    project.write_text(project.read_text() + EXCUSE.format(until="2020-01-01"))
    verdict = examined(project)[1]
    assert verdict.outcome == "failed"
    assert "the excuse ended on 2020-01-01" in verdict.sentence


# Locking what was proven


def quiet(what: str, done: int, total: int | None) -> None:
    """Shows nothing."""


def resolved(path: Path) -> lock.Lock:
    return locking.resolved(manifest.load(path), Store(), offline=True, progress=quiet)


def test_a_lock_holds_what_was_built_and_measured(project: Path) -> None:
    made = resolved(project)
    assert made.identity == "weights"
    assert sorted(made.source) == ["config.json", "model.safetensors", "tokenizer.json"]
    for variant in ("int8", "int4"):
        assert made.artifacts[variant] == dict(build_of(project, variant)[1].files)
        assert made.measured[variant]["counted"] == {"files": 5}
    assert {"onnx", "onnx-ir", "numpy", "safetensors"} <= set(made.tools)


def test_a_lock_names_no_folder_of_this_machine(project: Path, tmp_path: Path) -> None:
    assert str(tmp_path) not in lock.text(resolved(project))


def test_a_lock_reads_back_as_it_was_resolved(project: Path) -> None:
    made = resolved(project)
    lock.path_of(project).write_text(lock.text(made))
    assert lock.read(project) == made
    lock.insist_current(manifest.load(project), made)


def test_locking_twice_changes_nothing(project: Path) -> None:
    made = resolved(project)
    lock.path_of(project).write_text(lock.text(made))
    again = resolved(project)
    assert locking.compare(made, again) == []
    assert lock.text(again) == lock.text(made)


def test_what_is_locked_is_not_fetched_again(project: Path) -> None:
    made = resolved(project)
    lock.path_of(project).write_text(lock.text(made))
    weights = project.parent / "weights"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (weights / name).unlink()
    edit(project, "  path: weights\n", "  package: weights==1.0\n")
    again = {**made.recipe, "source": {"package": {"package": "weights==1.0", "folder": None}}}
    lock.path_of(project).write_text(lock.text(replace(made, recipe=again)))
    assert resolved(project).artifacts == made.artifacts


def test_a_folder_that_has_other_bytes_today_is_locked_anew(project: Path) -> None:
    made = resolved(project)
    lock.path_of(project).write_text(lock.text(made))
    stand_ins.bert(project.parent / "weights", seed=1)
    assert resolved(project).source["model.safetensors"] != made.source["model.safetensors"]


def test_a_new_option_is_the_only_difference_it_makes(project: Path) -> None:
    made = resolved(project)
    lock.path_of(project).write_text(lock.text(made))
    edit(project, "scheme: w8a8-per-token", 'scheme: {w8a8-per-token: {activations_16bit: ["*.value.weight"]}}')
    lines = locking.compare(made, resolved(project))
    assert [line.split(":")[0] for line in lines] == [
        "artifacts.int8.SHA256SUMS",
        "artifacts.int8.model.onnx",
        "recipe.variants.int8.w8a8-per-token.activations_16bit[0]",
    ]


def test_what_does_not_conform_cannot_be_locked(project: Path) -> None:
    edit(project, LIMITED, "    budget: 1 MB\n    limits: {counted: {files: 1}}\n  int4")
    with pytest.raises(ArtifactError, match=r"tiny/int8: counted failed: counted; only what conforms can be locked"):
        resolved(project)


def test_figures_are_rounded_and_only_numbers_are_kept() -> None:
    verdict = Verdict("x", "passed", "x", {"a": 0.123456789, "b": 3, "c": "text", "d": [1]})
    assert locking._figures(verdict) == {"a": 0.1235, "b": 3}


def test_figures_are_json(project: Path) -> None:
    measured = resolved(project).measured
    assert json.loads(json.dumps(measured)) == measured


def test_a_project_s_check_that_breaks_off_is_told_with_its_line_and_stops_no_other(project: Path) -> None:
    own = project.parent / "conformance" / "checks" / "counted.py"
    own.write_text(own.read_text().replace("count = len(", "count = 1 / len(()) + len("))
    budget, counted = examined(project)
    assert budget.outcome == "passed"
    line = own.read_text().splitlines().index("    count = 1 / len(()) + len(subject.artifact.files)") + 1
    assert counted.outcome == "errored"
    assert counted.sentence == (
        f"{own}:{line}:1: tiny/int8: counted broke off: ZeroDivisionError: division by zero; correct the check"
    )


def test_a_mistake_of_modelkit_s_own_check_is_no_verdict(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(subject: Subject, limits: Any) -> Verdict:
        raise KeyError("x")

    monkeypatch.setattr(kinds.load("checks", "budget"), "check", check)
    with pytest.raises(KeyError):
        examined(project)
