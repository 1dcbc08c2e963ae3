"""Verdicts as test results: outcomes, selection, re-runs, workers, reports."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from modelkit import conformance, manifest

CHECKS = len(conformance.plan(manifest.load(Path(__file__).parents[2] / "manifests" / "minilm-l6.yaml")))
"""Of a model that gives vectors, as the stand-in's is."""


def test_a_conforming_model_passes_and_the_table_says_so(project: Path, run) -> None:
    result = run("tiny.yaml")
    result.assert_outcomes(passed=2 * CHECKS)
    result.stdout.re_match_lines([r".*tiny .* int8 .* conforming .*", r".*tiny .* int4 .* conforming .*"])


def test_both_finished_folders_are_left_behind(project: Path, run) -> None:
    run("tiny.yaml")
    for channel in ("dev", "prod"):
        names = {path.name for path in (project / "build" / channel / "out" / "Final" / "tiny").iterdir()}
        assert {"model.onnx", "tokenizer.json", "config.json", "modelkit.json", "SHA256SUMS"} <= names


def test_a_second_run_is_warm_and_says_so(project: Path, run) -> None:
    run("tiny.yaml")
    run("tiny.yaml").stdout.fnmatch_lines(["warm: nothing downloaded, nothing rebuilt*"])


def test_a_warm_run_imports_no_onnxruntime(project: Path, pytester: pytest.Pytester, run) -> None:
    run("tiny.yaml")
    pytester.makeconftest(
        "import sys\ndef pytest_unconfigure(config): print('imported:', 'onnxruntime' in sys.modules)\n"
    )
    run("-s", "tiny.yaml").stdout.fnmatch_lines(["imported: False"])


@pytest.mark.parametrize(
    ("selection", "passed"),
    [
        (("-k", "int8"), CHECKS),
        (("-m", "modelkit(check='parity')"), 2),
        (("-m", "modelkit(variant='int4', check='budget')"), 1),
        (("-k", "parity and int4"), 1),
    ],
)
def test_checks_are_selected_as_tests_are(project: Path, run, selection: tuple[str, str], passed: int) -> None:
    run(*selection, "tiny.yaml").assert_outcomes(passed=passed, deselected=2 * CHECKS - passed)


def test_two_workers_give_the_same_verdicts_and_one_table(project: Path, run) -> None:
    result = run("-n", "2", "--dist=loadscope", "tiny.yaml")
    result.assert_outcomes(passed=2 * CHECKS)
    assert result.stdout.str().count("worst margin") == 1


def test_two_workers_build_a_variant_once_each(project: Path, run) -> None:
    import shutil

    shutil.rmtree(project / "store")
    run("-n", "2", "--dist=loadscope", "tiny.yaml").assert_outcomes(passed=2 * CHECKS)
    assert not list((project / "store" / "building").glob("*"))


def test_a_broken_promise_fails_with_one_line_and_the_command_to_run_it_again(project: Path, run) -> None:
    _set(project, "budget: 1 MB", "budget: 1 kB")
    result = run("tiny.yaml::int8")
    result.assert_outcomes(passed=CHECKS - 1, failed=1)
    result.stdout.fnmatch_lines(["tiny.yaml: tiny/int8:*", "*again: pytest --modelkit tiny.yaml::int8::budget"])
    assert "Traceback" not in result.stdout.str()


def test_the_command_to_run_it_again_does_so_for_a_draft_in_a_folder_with_an_apostrophe(project: Path, run) -> None:
    _set(project, "budget: 1 MB", "budget: 1 kB")
    folder = project / "ann's models"
    folder.mkdir()
    for name in ("weights", "tiny.yaml"):
        (project / name).rename(folder / name)
    first = run("-k", "budget and int8", "--modelkit-drafts", str(folder))
    first.assert_outcomes(failed=1)
    command = next(line for line in first.outlines if "again: " in line).split("again: ")[1]
    assert shlex.split(command)[:3] == ["pytest", "--modelkit", "ann's models/tiny.yaml::int8::budget"]
    run(*shlex.split(command)[2:]).assert_outcomes(failed=1)


def test_last_failed_runs_the_broken_promise_alone(project: Path, pytester: pytest.Pytester) -> None:
    _set(project, "budget: 1 MB", "budget: 1 kB")
    pytester.runpytest_subprocess("--modelkit", "tiny.yaml::int8")
    pytester.runpytest_subprocess("--modelkit", "--lf", "tiny.yaml").assert_outcomes(failed=1)


def test_a_failed_build_is_one_error_with_the_reason(project: Path, run) -> None:
    (project / "weights" / "config.json").write_text("{}")
    import shutil

    shutil.rmtree(project / "store")
    result = run("tiny.yaml::int8")
    result.assert_outcomes(errors=1, skipped=CHECKS - 1)
    result.stdout.fnmatch_lines(["*config.json has sha256*expected*"])
    assert "Traceback" not in result.stdout.str()


def test_an_edited_finished_folder_is_one_error_and_is_kept(project: Path, run) -> None:
    run("tiny.yaml::int8")
    edited = project / "build" / "dev" / "out" / "Final" / "tiny" / "model.onnx"
    edited.write_bytes(b"mine")
    result = run("tiny.yaml::int8")
    result.assert_outcomes(errors=1, skipped=CHECKS - 1)
    result.stdout.fnmatch_lines(["*was changed after the build (model.onnx)*"])
    assert edited.read_bytes() == b"mine"


def test_a_draft_is_skipped_with_the_reason_and_is_not_green(project: Path, run) -> None:
    (project / "tiny.lock").unlink()
    result = run("-rs", "tiny.yaml")
    result.assert_outcomes(skipped=2 * CHECKS)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(
        [f"*tiny*int8*draft*{CHECKS} skipped*", "*draft: there is no tiny.lock; run `modelkit lock tiny.yaml`*"]
    )


def test_a_draft_is_built_when_it_is_asked_for(project: Path, run) -> None:
    (project / "tiny.lock").unlink()
    run("--modelkit-drafts", "tiny.yaml").assert_outcomes(passed=2 * CHECKS)


def test_a_known_failure_is_an_expected_one_with_its_reason(project: Path, run) -> None:
    _set(project, "budget: 1 MB", "budget: 1 kB")
    _know(project, "budget", "2099-01-01")
    result = run("-rx", "tiny.yaml::int8")
    result.assert_outcomes(passed=CHECKS - 1, xfailed=1)
    result.stdout.fnmatch_lines(["*known failure until 2099-01-01, it is a test:*"])


def test_a_known_failure_that_passes_fails(project: Path, run) -> None:
    _know(project, "budget", "2099-01-01")
    run("tiny.yaml::int8::budget").assert_outcomes(failed=1)


def test_a_known_failure_whose_day_is_over_fails(project: Path, run) -> None:
    _set(project, "budget: 1 MB", "budget: 1 kB")
    _know(project, "budget", "2020-01-01")
    result = run("tiny.yaml::int8::budget")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the excuse ended on 2020-01-01*"])


def test_junit_carries_the_figures(project: Path, run) -> None:
    run("--junitxml=report.xml", "tiny.yaml::int8::parity")
    names = {element.get("name") for element in ElementTree.parse(project / "report.xml").iter("property")}
    assert {"modelkit", "modelkit.margin", "modelkit.cosine_mean"} <= names


def test_evidence_names_the_exact_bytes_and_holds_every_verdict(project: Path, run) -> None:
    from modelkit.digests import digest_folder, digest_of

    run("tiny.yaml")
    evidence = json.loads((project / "build" / "dev" / "out" / "Evidence" / "tiny-int8.json").read_text())
    finished = project / "build" / "dev" / "out" / "Final" / "tiny"
    assert evidence["artifact"]["digest"] == digest_of(digest_folder(finished))
    assert {verdict["outcome"] for verdict in evidence["verdicts"]} == {"passed"}
    assert len(evidence["verdicts"]) == CHECKS


def test_a_single_check_run_again_keeps_the_other_evidence(project: Path, run) -> None:
    run("tiny.yaml::int8")
    run("tiny.yaml::int8::parity")
    evidence = json.loads((project / "build" / "dev" / "out" / "Evidence" / "tiny-int8.json").read_text())
    assert len(evidence["verdicts"]) == CHECKS


def test_ordinary_tests_beside_a_manifest_run_as_ever(project: Path, pytester: pytest.Pytester, run) -> None:
    pytester.makepyfile("def test_it(): pass")
    run(".").assert_outcomes(passed=2 * CHECKS + 1)


def _set(project: Path, old: str, new: str) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace(old, new, 1))


def _know(project: Path, check: str, until: str) -> None:
    path = project / "tiny.yaml"
    known = f"known_failures:\n  - {{variant: int8, check: {check}, because: it is a test, until: {until}}}\n"
    path.write_text(path.read_text() + known)


def test_two_manifests_of_one_name_are_refused(project: Path, run) -> None:
    (project / "twin.yaml").write_text((project / "tiny.yaml").read_text())
    result = run(".")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*twin.yaml:1:1: 'tiny/int8' would go to *, where tiny.yaml puts its own*"])


def test_a_check_that_crashes_is_on_the_record_as_errored(project: Path, run) -> None:
    checks = project / "conformance" / "checks"
    checks.mkdir()
    (checks / "own.py").write_text(
        "from dataclasses import dataclass\nVERSION = 1\n@dataclass(frozen=True)\nclass Options: pass\n"
        "def check(subject, limits): raise KeyError('x')\n"
    )
    result = run("tiny.yaml::int8")
    result.assert_outcomes(passed=CHECKS, failed=1)
    result.stdout.fnmatch_lines(
        ["*own.py:5:1: tiny/int8: own broke off: KeyError: 'x'; correct the check", "*tiny*int8*could not run*"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("outcome", ["errored", "excused", "fail"])
def test_a_check_may_not_give_an_outcome_that_is_not_its_to_give(project: Path, run, outcome: str) -> None:
    checks = project / "conformance" / "checks"
    checks.mkdir()
    (checks / "own.py").write_text(
        "from dataclasses import dataclass\nfrom modelkit.vocabulary import Verdict\nVERSION = 1\n"
        "@dataclass(frozen=True)\nclass Options: pass\n"
        f"def check(subject, limits): return Verdict('own', '{outcome}', 'nothing')\n"
    )
    result = run("tiny.yaml::int8::own")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*own gave the outcome '{outcome}'; a check gives passed, failed, skipped*"])


def evidence_of(project: Path) -> dict[str, dict]:
    text = (project / "build" / "dev" / "out" / "Evidence" / "tiny-int8.json").read_text()
    return {verdict["check"]: verdict for verdict in json.loads(text)["verdicts"]}


def test_a_lighter_run_keeps_the_evidence_of_a_heavier_one(project: Path, run) -> None:
    run("--modelkit-profile", "full", "-k", "reproducible or any-text", "tiny.yaml::int8")
    heavier = evidence_of(project)
    assert set(heavier) == {"reproducible", "any-text"}
    run("-k", "any-text or budget", "tiny.yaml::int8")
    lighter = evidence_of(project)
    assert set(lighter) == {"reproducible", "any-text", "budget"}
    assert lighter["any-text"]["measured"]["examples"] == heavier["any-text"]["measured"]["examples"]


def test_evidence_that_another_limit_gave_is_not_kept(project: Path, run) -> None:
    run("tiny.yaml::int8")
    _set(project, "budget: 1 MB", "budget: 2 MB")
    run("tiny.yaml::int8::parity")
    evidence = json.loads((project / "build" / "dev" / "out" / "Evidence" / "tiny-int8.json").read_text())
    assert "budget" not in [verdict["check"] for verdict in evidence["verdicts"]]


def test_evidence_that_cannot_be_written_fails_the_run_in_one_line(project: Path, run) -> None:
    run("tiny.yaml::int8")
    import shutil

    folder = project / "build" / "dev" / "out" / "Evidence"
    shutil.rmtree(folder)
    folder.write_text("in the way")
    result = run("tiny.yaml::int8")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*tiny-int8.json: cannot be written*"])
    assert "Traceback" not in result.stdout.str()


def test_by_the_ini_setting_a_stray_yaml_file_is_no_manifest(project: Path, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmodelkit = true\n")
    pytester.makepyfile("def test_it(): pass")
    (project / "mkdocs.yml").write_text("site_name: x\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=2 * CHECKS + 1)


def test_a_selection_of_checks_is_not_called_conforming(project: Path, run) -> None:
    run("tiny.yaml::int8::budget").stdout.fnmatch_lines([f"*tiny*int8*{CHECKS - 1} of {CHECKS}*"])
