"""What `bench.stale` demands after a change is what the checks and their keys depend on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from modelkit import conformance, kinds
from modelkit.vocabulary import Subject
from subjects import good


class Watched:
    """A subject that knows which of its attributes were asked for."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.asked.add(name)
        return getattr(self.subject, name)


@pytest.fixture
def changes(monkeypatch) -> dict[str, Any]:
    """The rows by their names; the folder bench stands beside the package."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return {change.what: change for change in import_module("bench.stale_changes").CHANGES}


def reads_the_corpus(check: str, subject: Subject) -> bool:
    watched, module = Watched(subject), kinds.load("checks", check)
    module.check(watched, module.Options())
    return bool(watched.asked & {"corpus", "outputs"})


def test_a_text_of_the_corpus_is_demanded_of_every_check_that_reads_it(changes, tmp_path_factory) -> None:
    subject = good(tmp_path_factory.getbasetemp())
    reading = {check for check in conformance.plan(subject.manifest) if reads_the_corpus(check, subject)}
    change = changes["a text of the corpus"]
    assert set(change.int8.split()) == set(change.int4.split()) == reading


@pytest.mark.parametrize("tool", conformance.TOOLS)
def test_the_version_of_every_tool_that_verdicts_depend_on_is_tried(changes, tool: str) -> None:
    change = changes[f"version of {tool}"]
    assert change.arguments == (f"{tool}=99.0",)
    assert change.int8.split()[-1] == change.int4.split()[-1] == "V"
