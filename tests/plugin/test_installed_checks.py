"""A check of another distribution is planned, judged, limited and recorded like modelkit's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

CHECK = """\
from dataclasses import dataclass
from modelkit.limits import at_most, judge
VERSION = 1
PROMISE = "the model has a short name"
@dataclass(frozen=True)
class Options:
    letters: int = at_most(8)
def check(subject, limits):
    return judge("whatever", {"letters": len(subject.manifest.name)}, limits)
"""
both_ways = pytest.mark.parametrize("ways", [(), ("-n", "2", "--dist=loadscope")], ids=["serial", "two-workers"])


@pytest.fixture
def installed(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with one check on the path of the tests' processes; its module."""
    place = project.parent / f"{project.name}-installed"
    metadata = place / "short_names-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: short-names\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[modelkit.checks]\nshort-name = short_names.check\n")
    module = place / "short_names" / "check.py"
    module.parent.mkdir()
    (module.parent / "__init__.py").touch()
    module.write_text(CHECK)
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return module


def told(project: Path) -> dict[str, object]:
    evidence = json.loads((project / "build" / "dev" / "out" / "Evidence" / "tiny-int8.json").read_text())
    [verdict] = [one for one in evidence["verdicts"] if one["check"] == "short-name"]
    return dict(verdict)


@both_ways
def test_it_judges_every_variant(project: Path, run, installed: Path, ways: tuple[str, ...]) -> None:
    run(*ways, "-k", "short-name", "tiny.yaml").assert_outcomes(passed=2)
    assert (told(project)["outcome"], told(project)["measured"]) == ("passed", {"letters": 4})


def test_without_the_distribution_it_is_not_there(project: Path, run) -> None:
    assert run("-k", "short-name", "tiny.yaml").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_it_fails_by_the_limit_that_a_manifest_sets(project: Path, run, installed: Path) -> None:
    path = project / "tiny.yaml"
    limit = "    budget: 1 MB\n    limits: {short-name: {letters: 3}}\n"
    path.write_text(path.read_text().replace("    budget: 1 MB\n", limit, 1))
    result = run("tiny.yaml::int8::short-name")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["tiny.yaml: tiny/int8: letters 4 is above 3"])


def test_its_verdict_is_on_record_until_its_code_changes(project: Path, run, installed: Path) -> None:
    reused = []
    for code in (CHECK, CHECK, CHECK.replace("at_most(8)", "at_most(9)"), f"{CHECK}# changed\n"):
        installed.write_text(code)
        run("tiny.yaml::int8::short-name").assert_outcomes(passed=1)
        reused.append(told(project)["reused"])
    assert reused == [False, True, False, False]


def test_one_that_cannot_be_imported_stops_the_run_with_one_sentence(project: Path, run, installed: Path) -> None:
    installed.write_text("import nowhere_to_be_found\n")
    result = run("tiny.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*short_names.check, which is installed, cannot be imported*nowhere_to_be_found*"])
    assert "Traceback" not in result.stdout.str()
