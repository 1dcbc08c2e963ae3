"""A check that somebody else wrote: what is wrong with it is told in one line, and never passes for a pass."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from modelkit import check_modules, kinds
from modelkit.errors import CheckError, ManifestError
from modelkit.vocabulary import Verdict

HEAD = """\
from dataclasses import dataclass
import numpy as np
from modelkit.vocabulary import Verdict
VERSION = 1
@dataclass(frozen=True)
class Options: pass
"""
BODY = "def check(subject, limits): return Verdict('own', 'passed', 'fine')\n"
SUBJECT: Any = SimpleNamespace(manifest=SimpleNamespace(name="tiny"), variant=SimpleNamespace(name="int8"))


@pytest.fixture
def put(tmp_path: Path):
    folder = tmp_path / "conformance" / "checks"
    folder.mkdir(parents=True)

    def put(text: str) -> ModuleType:
        (folder / "own.py").write_text(text)
        return check_modules.load("own", tmp_path)

    return put


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("VERSION = None", "VERSION is neither a whole number nor a text"),
        ("class Options: pass", "Options is no dataclass whose fields all have a standard"),
        ("Options = Options()", "Options is no dataclass whose fields all have a standard"),
        ("@dataclass\nclass Options:\n    least: int", "Options is no dataclass whose fields all have a standard"),
        ("check = 5", "check is no function"),
        ("PROFILE = 'slow'", "PROFILE is 'slow', none of quick, full, release"),
        ("PROFILE = ['quick']", r"PROFILE is \['quick'\], none of quick"),
        ("NEEDS = ('bananas',)", r"NEEDS is \('bananas',\), no tuple of images, labels, logits"),
        ("NEEDS = 'vectors'", "NEEDS is 'vectors', no tuple of images, labels, logits"),
        ("EXAMPLES = 5", "EXAMPLES is no mapping of each profile"),
        ("EXAMPLES = {'quick': 1, 'full': 2}", "EXAMPLES is no mapping of each profile"),
        ("EXAMPLES = {'quick': 0, 'full': 2, 'release': 3}", "EXAMPLES is no mapping of each profile"),
    ],
)
def test_a_word_that_is_not_understood_is_refused(put, line: str, told: str) -> None:
    with pytest.raises(ManifestError, match=rf"own\.py: {told}.*; correct the check$"):
        put(f"{HEAD}{BODY}{line}\n")


@pytest.mark.parametrize(
    "line",
    ["", "VERSION = '2'", "PROFILE = 'full'", "NEEDS = ['vectors']", "PROFILE = 'release'\nEXAMPLES = {'release': 9}"],
)
def test_a_word_that_is_understood_is_taken(put, line: str) -> None:
    module = put(f"{HEAD}{BODY}{line}\n")
    assert check_modules.verdict("own", module, SUBJECT, module.Options()) == Verdict("own", "passed", "fine")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("return None", "own gave no Verdict, but None"),
        ("return True", "own gave no Verdict, but True"),
        ("return Verdict('own', 'fine', '')", "own gave the outcome 'fine'; a check gives passed, failed, skipped"),
        (
            "return Verdict('own', 'passed', '', {'size': np.float32(1)})",
            "cannot be written down .measured.size: .* is a float32, which is no JSON built-in",
        ),
        (
            "return Verdict('own', 'passed', '', margin=float('nan'))",
            "cannot be written down .margin: nan has no JSON form",
        ),
        ("return Verdict('own', 'passed', '', worst=({'at': {1, 2}},))", r"cannot be written down .worst\[0\]\.at: "),
        ("return Verdict('own', 'passed', '', worst=5)", "cannot be written down"),
        ("raise SystemExit(0)", r"own\.py:7:1: tiny/int8: own broke off: SystemExit: 0; correct the check"),
        ("exit()", r"own\.py:7:1: tiny/int8: own broke off: SystemExit: None; correct the check"),
        ("raise KeyError('a\\nb')", r"own broke off: KeyError: 'a\\nb'; correct the check"),
        ("raise ValueError('a\\n  b')", "own broke off: ValueError: a b; correct the check"),
    ],
)
def test_an_answer_that_no_check_may_give_is_an_error_with_its_reason(put, line: str, told: str) -> None:
    module = put(f"{HEAD}def check(subject, limits): {line}\n")
    with pytest.raises(CheckError, match=told) as raised:
        check_modules.verdict("own", module, SUBJECT, module.Options())
    assert "\n" not in str(raised.value)


def test_a_check_may_not_pass_its_verdict_off_as_another_s(put) -> None:
    module = put(f"{HEAD}def check(subject, limits): return Verdict('parity', 'passed', '')\n")
    assert check_modules.verdict("own", module, SUBJECT, module.Options()).check == "own"


def test_a_file_that_exits_when_it_is_imported_is_told(put) -> None:
    with pytest.raises(ManifestError, match=r"own\.py: cannot be imported \(SystemExit: 0\); correct it"):
        put("raise SystemExit(0)\n")


def test_two_files_of_one_name_are_refused(put, tmp_path: Path) -> None:
    put(HEAD + BODY)
    (tmp_path / "conformance" / "checks" / "a-b.py").write_text(HEAD + BODY)
    (tmp_path / "conformance" / "checks" / "a_b.py").write_text(HEAD + BODY)
    with pytest.raises(ManifestError, match=r"a_b\.py: takes the name of a-b\.py beside it: both are a-b"):
        kinds.names("checks", tmp_path)
