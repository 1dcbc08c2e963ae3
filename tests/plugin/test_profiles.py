"""What `--modelkit-profile` and `--modelkit-examples` change: which checks run, and how much those that search try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CHECK = """\
from dataclasses import dataclass
from modelkit.vocabulary import Verdict
VERSION = 1
{more}
@dataclass(frozen=True)
class Options: pass
def check(subject, limits):
    measured = {{"tried": subject.examples}}
    return Verdict("", "passed" if subject.examples < 1000 else "failed", f"tried {{subject.examples}}", measured)
"""
OURS = {
    "searching": 'EXAMPLES = {"quick": 3, "full": 33, "release": 333}',
    "thorough": 'PROFILE = "full"',
    "endless": 'PROFILE = "release"\nEXAMPLES = {"release": 1}',
}
SERIAL: tuple[str, ...] = ()
PARALLEL = ("-n", "2", "--dist=loadscope")
PROFILES = {"quick": {"searching": 3}, "full": {"searching": 33, "thorough": 0},
            "release": {"searching": 333, "thorough": 0, "endless": 1}}  # fmt: skip
both_ways = pytest.mark.parametrize("ways", [SERIAL, PARALLEL], ids=["serial", "two-workers"])


@pytest.fixture
def checks(project: Path) -> str:
    """Three checks of the project, and the `-k` that selects them."""
    folder = project / "conformance" / "checks"
    folder.mkdir()
    for name, more in OURS.items():
        (folder / f"{name}.py").write_text(CHECK.format(more=more))
    return " or ".join(OURS)


def told(project: Path) -> dict[str, dict[str, Any]]:
    """Check -> what the evidence says of it; the same for both variants."""
    both = []
    for name in ("dev/out/Evidence/tiny-int8.json", "prod/out/Evidence/tiny-int4.json"):
        evidence = json.loads((project / "build" / name).read_text())
        both.append({one["check"]: one for one in evidence["verdicts"] if one["check"] in OURS})
    assert [one["measured"] for one in both[0].values()] == [one["measured"] for one in both[1].values()]
    return both[0]


def tried(project: Path) -> dict[str, int]:
    return {check: verdict["measured"]["tried"] for check, verdict in told(project).items()}


@both_ways
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_runs_its_checks_and_those_before_it_with_its_examples(project, run, checks, ways, profile):
    result = run(*ways, "-k", checks, f"--modelkit-profile={profile}", "tiny.yaml")
    assert result.parseoutcomes()["passed"] == 2 * len(PROFILES[profile])
    assert tried(project) == PROFILES[profile]


def test_without_a_profile_it_is_quick(project, run, checks):
    run("-k", checks, "tiny.yaml")
    assert tried(project) == PROFILES["quick"]


def test_each_profile_has_checks_of_its_own_that_are_collected_in_it_alone(project, run):
    of_profiles = {}
    for profile in PROFILES:
        lines = run("--collect-only", "-q", f"--modelkit-profile={profile}", "tiny.yaml").outlines
        of_profiles[profile] = {line.rpartition("::")[2] for line in lines if line.startswith("tiny.yaml::int8::")}
    assert of_profiles["quick"] < of_profiles["full"] <= of_profiles["release"]
    assert of_profiles["full"] - of_profiles["quick"] >= {"cost", "reproducible"}


@both_ways
def test_the_number_of_examples_can_be_set_by_itself_for_the_checks_that_search(project, run, checks, ways):
    run(*ways, "-k", checks, "--modelkit-profile=full", "--modelkit-examples=7", "tiny.yaml")
    assert tried(project) == {"searching": 7, "thorough": 0}


@both_ways
def test_a_verdict_on_other_examples_is_taken_anew_and_one_on_the_same_is_not(project, run, checks, ways):
    counted = project / "counted.txt"
    path = project / "conformance" / "checks" / "searching.py"
    noted = f"    open({str(counted)!r}, 'a').write(f'{{subject.examples}} ')\n    measured ="
    path.write_text(path.read_text().replace("    measured =", noted))
    for examples in (4, 4, 5):
        run(*ways, "-k", "searching", f"--modelkit-examples={examples}", "tiny.yaml")
    assert sorted(counted.read_text().split()) == ["4", "4", "5", "5"]


@both_ways
def test_the_command_that_takes_a_verdict_again_has_the_profile_and_the_examples(project, run, checks, ways):
    wishes = ("--modelkit-profile=full", "--modelkit-examples=1000")
    result = run(*ways, "-k", "searching", *wishes, "tiny.yaml")
    command = "pytest --modelkit tiny.yaml::int8::searching --modelkit-profile full --modelkit-examples 1000"
    result.stdout.fnmatch_lines([f"*again: {command}"])
    assert told(project)["searching"]["again"] == command
    again = run(*command.split()[2:])
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["*tried 1000*"])


@pytest.mark.parametrize("wish", ["--modelkit-profile=slow", "--modelkit-examples=0", "--modelkit-examples=many"])
def test_a_wish_that_makes_no_sense_is_refused(project, run, wish):
    assert run(wish, "tiny.yaml").ret == pytest.ExitCode.USAGE_ERROR


def test_the_shipped_searches_try_as_many_examples_as_they_are_told(project, run):
    run("-k", "int8 and (any-text or tokenizer)", "--modelkit-examples=2", "tiny.yaml")
    evidence = json.loads((project / "build/dev/out/Evidence/tiny-int8.json").read_text())
    found = {one["check"]: one["measured"].get("examples") for one in evidence["verdicts"]}
    assert (found["any-text"], found["tokenizer"]) == (2, 2)
