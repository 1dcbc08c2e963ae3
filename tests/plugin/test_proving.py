"""`--modelkit-prove`: whether the checks of a variant notice faults, as one test more; and the command `prove`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugin.conftest import command

pytestmark = pytest.mark.slow

USAGE, NOT_CONFORMING = 2, 1
SHELF = """\
from modelkit import kinds
every = kinds.names
kinds.names = lambda shelf, project=None: {faults!r} if shelf == "faults" else every(shelf, project)
"""
NOTICED = ("sums-stale", "weights-pickled")
UNNOTICED = "pooling-exchanged"
"""The float32 model pools as wrongly, and there is no recording of the original to tell."""
both_ways = pytest.mark.parametrize("ways", [(), ("-n", "2", "--dist=loadscope")], ids=["serial", "two-workers"])


@pytest.fixture
def shelf(project: Path) -> Callable[..., None]:
    """Puts these faults alone on the shelf: all of them take a minute."""

    def put(*faults: str) -> None:
        (project / "conftest.py").write_text(SHELF.format(faults=faults))

    return put


@pytest.fixture
def unrecorded(project: Path) -> None:
    """The project without what the original model gives."""
    (project / "conformance" / "golden" / "tiny.json").unlink()


def told(project: Path, name: str = "dev/out/Evidence/tiny-int8.json") -> dict[str, Any]:
    """What the evidence says of the proof."""
    evidence = json.loads((project / "build" / name).read_text())
    [verdict] = [one for one in evidence["verdicts"] if one["check"] == "prove"]
    return dict(verdict)


def collected(result: pytest.RunResult, variant: str) -> list[str]:
    lines = [line.split("::") for line in result.outlines if line.startswith(f"tiny.yaml::{variant}::")]
    return [check for _, _, check in lines]


def test_without_the_flag_nothing_is_proven(project: Path, run) -> None:
    assert "prove" not in collected(run("--collect-only", "-q", "tiny.yaml"), "int8")


def test_with_the_flag_each_variant_has_one_test_more_after_its_checks(project: Path, run) -> None:
    for variant in ("int8", "int4"):
        before = collected(run("--collect-only", "-q", "tiny.yaml"), variant)
        assert collected(run("--collect-only", "-q", "--modelkit-prove", "tiny.yaml"), variant) == [*before, "prove"]


@both_ways
def test_it_passes_and_is_reported_like_a_check(project: Path, run, shelf, ways) -> None:
    shelf(*NOTICED)
    plain = run(*ways, "tiny.yaml").parseoutcomes()["passed"]
    result = run(*ways, "--modelkit-prove", "tiny.yaml")
    result.assert_outcomes(passed=plain + 2)
    result.stdout.fnmatch_lines([f"*tiny*int8*conforming*{plain // 2 + 1} passed*"])
    for name in ("dev/out/Evidence/tiny-int8.json", "prod/out/Evidence/tiny-int4.json"):
        verdict = told(project, name)
        assert (verdict["outcome"], verdict["sentence"]) == ("passed", "2 of 2 faults noticed")
        assert verdict["measured"] == {"faults": 2, "noticed": 2, "share": 1}


@both_ways
def test_it_fails_with_the_survivors_in_one_line_and_the_command_that_finds_them_again(
    project: Path, run, shelf, unrecorded, ways
) -> None:
    shelf(*NOTICED, UNNOTICED)
    result = run(*ways, "--modelkit-prove", "-k", "prove and int8", "tiny.yaml")
    result.assert_outcomes(failed=1)
    command = "pytest --modelkit tiny.yaml::int8::prove --modelkit-prove"
    result.stdout.fnmatch_lines(
        [f"tiny.yaml: tiny/int8: 2 of 3 faults noticed; not: {UNNOTICED}", f"*again: {command}", "*-566.7% prove*"]
    )
    assert "Traceback" not in result.stdout.str()
    assert (told(project)["outcome"], told(project)["again"]) == ("failed", command)
    assert [one["fault"] for one in told(project)["worst"]] == [UNNOTICED]
    run(*command.replace("'", "").split()[2:]).assert_outcomes(failed=1)


def test_a_proof_that_is_deselected_is_not_called_done(project: Path, run, shelf) -> None:
    shelf(*NOTICED)
    result = run("--modelkit-prove", "-k", "not prove and int8", "tiny.yaml")
    assert result.parseoutcomes()["deselected"] >= 1
    result.stdout.fnmatch_lines(["*tiny*int8*1 of * checks*"])


def test_a_proof_on_record_is_not_made_again(project: Path, run, shelf) -> None:
    shelf(*NOTICED)
    for _ in range(2):
        result = run("--modelkit-prove", "-k", "prove and int8", "tiny.yaml")
    assert told(project)["reused"]
    result.stdout.fnmatch_lines(["warm: nothing downloaded, nothing rebuilt*"])


def test_a_proof_on_record_is_made_again_for_another_shelf_of_faults(project: Path, run, shelf, unrecorded) -> None:
    shelf(*NOTICED)
    run("--modelkit-prove", "-k", "prove and int8", "tiny.yaml").assert_outcomes(passed=1)
    shelf(*NOTICED, UNNOTICED)
    run("--modelkit-prove", "-k", "prove and int8", "tiny.yaml").assert_outcomes(failed=1)


def test_what_does_not_conform_undamaged_proves_nothing(project: Path, run, shelf) -> None:
    shelf(*NOTICED)
    manifest = project / "tiny.yaml"
    manifest.write_text(manifest.read_text().replace("budget: 1 MB", "budget: 1 kB", 1))
    result = run("--modelkit-prove", "-k", "int8 and (prove or budget)", "tiny.yaml")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*tiny/int8 does not conform undamaged: *budget*"])
    assert told(project)["outcome"] == "errored"


def test_no_check_of_a_project_may_take_the_name_of_the_proof(project: Path, run) -> None:
    folder = project / "conformance" / "checks"
    folder.mkdir()
    (folder / "prove.py").write_text(
        "from dataclasses import dataclass\nVERSION = 1\n@dataclass(frozen=True)\nclass Options: pass\n"
        "def check(subject, limits): raise KeyError('x')\n"
    )
    result = run("tiny.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*no check may be called prove*"])


# The command


@pytest.fixture
def prove(project: Path):
    """`modelkit prove tiny/int8` with the faults of these names."""

    def prove(*faults: str, **wishes: bool) -> Any:
        named = [word for fault in faults for word in ("--fault", fault)]
        flags = [f"--{name}" for name, wanted in wishes.items() if wanted]
        return command("prove", "tiny/int8", "tiny.yaml", *named, *flags, cwd=project, store=project / "store")

    return prove


def test_the_command_names_the_damage_and_who_noticed_it(prove) -> None:
    done = prove("weights-pickled")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if "weights-pickled" in line)
    assert "pytorch_model.bin is there" in row
    assert done.stdout.endswith("tiny/int8: 1 of 1 faults noticed\n")


def test_the_command_fails_when_faults_survive_and_names_them(prove, unrecorded) -> None:
    done = prove("sums-stale", UNNOTICED)
    assert done.returncode == NOT_CONFORMING, done.stderr
    assert "SURVIVED" in next(line for line in done.stdout.splitlines() if UNNOTICED in line)
    assert done.stdout.endswith(f"tiny/int8: 1 of 2 faults noticed; not: {UNNOTICED}\n")


def test_the_command_tells_which_checks_noticed_nothing_when_all_were_asked(prove) -> None:
    told = prove("sums-stale", every=True).stdout.splitlines()[-2]
    assert told.startswith("No fault was noticed by ")
    assert "signature" in told
    assert "companions" not in told


def test_the_command_does_not_know_a_fault_and_suggests_one(prove) -> None:
    done = prove("sums-stael")
    assert done.returncode == USAGE
    assert "unknown fault 'sums-stael', did you mean 'sums-stale'?" in done.stderr
