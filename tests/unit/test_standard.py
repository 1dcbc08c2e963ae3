"""The standard on paper is the standard in code: every check has its section, every limit its row."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import stand_ins
from modelkit import kinds, manifest
from modelkit.errors import ManifestError
from subjects import good

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "conformance" / "README.md").read_text(encoding="utf-8")
CHECKS = kinds.names("checks", REPOSITORY)
SENSES = {"at least": ">=", "at most": "<="}
FIRST_COLUMN = "check"
BEFORE = date(2027, 2, 28)
"""A day on which the page's examples are not over."""


def section(title: str, level: int = 2) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    headings = [*re.finditer(rf"^#{{1,{level}}} (.+)$", PAGE, re.MULTILINE)]
    ends = [*(heading.start() for heading in headings[1:]), len(PAGE)]
    found = {heading[1]: PAGE[heading.end() : end] for heading, end in zip(headings, ends, strict=True)}
    assert title in found, f"conformance/README.md has no heading '{title}'"
    return found[title]


def rows() -> list[tuple[str, ...]]:
    """The cells of the table of limits."""
    table = section("The limits").strip().split("\n\n")[0]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines()]
    assert cells[0] == (FIRST_COLUMN, "limit", "sense", "standard")
    return cells[2:]


def stated() -> dict[tuple[str, str], tuple[str, float | None]]:
    """(check, limit) -> (sense, standard), as the page has it."""
    return {
        (check, limit.strip("`")): (SENSES[sense], None if standard == "none" else float(standard))
        for check, limit, sense, standard in rows()
        if sense
    }


def coded(check: str) -> dict[tuple[str, str], tuple[str, float | None]]:
    """The same as the check's `Options` have it."""
    options = kinds.load("checks", check, REPOSITORY).Options
    return {
        (check, limit.name): (limit.metadata["sense"], limit.default)
        for limit in fields(options)
        if "sense" in limit.metadata
    }


def example(heading: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", section(heading, 3), re.DOTALL | re.MULTILINE)
    assert found, f"no {language} under '{heading}'"
    return found[1]


def with_parts(folder: Path, text: str) -> Path:
    """A stand-in's manifest with the page's `limits` or `known_failures` put in."""
    path = stand_ins.manifest(folder)
    keys, added = yaml.safe_load(path.read_text()), yaml.safe_load(text)
    keys["known_failures"] = added.get("known_failures", [])
    keys["variants"]["int4"]["limits"] = added.get("limits", {})
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return path


@pytest.fixture
def _in_time(monkeypatch):
    monkeypatch.setattr(manifest, "_today", lambda: BEFORE)


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_has_a_section_that_opens_with_its_promise(check):
    promise = kinds.load("checks", check, REPOSITORY).PROMISE
    assert section(check, 3).strip().split("\n\n")[0] == f"> {promise}"


@pytest.mark.parametrize("check", CHECKS)
def test_every_section_says_what_its_limits_are(check):
    assert "\nLimits: " in section(check, 3)


@pytest.mark.parametrize("check", CHECKS)
def test_every_limit_is_in_the_table_with_its_sense_and_its_standard(check):
    assert {key: value for key, value in stated().items() if key[0] == check} == coded(check)


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_without_limits_says_so_in_the_table(check):
    found = [limit for name, limit, *_ in rows() if name == check]
    assert found, f"{check} is not in the table"
    assert any(limit.startswith("none: ") for limit in found) == (not coded(check))


def test_the_table_names_no_check_that_does_not_exist():
    assert {check for check, *_ in rows()} <= set(CHECKS)


def test_the_table_is_in_alphabetical_order_of_its_checks():
    names = [check for check, *_ in rows()]
    assert names == sorted(names)


def test_no_section_is_left_of_a_check_that_is_gone():
    assert set(re.findall(r"^### (.+)$", section("The checks"), re.MULTILINE)) == set(CHECKS)


@pytest.mark.parametrize("check", ["agreement", "logits", "outputs", "parity", "quality", "retrieval"])
def test_every_limit_of_a_comparison_is_defined(check):
    defined = re.findall(r"^\| `(\w+)` \|", section(check, 3), re.MULTILINE)
    assert defined == [limit for _, limit in coded(check)]


def test_every_table_has_a_line_below_its_head():
    lines = PAGE.splitlines()
    heads = [number for number in range(len(lines)) if lines[number][:1] == "|" != lines[number - 1][:1]]
    assert heads
    assert [lines[head] for head in heads if set(lines[head + 1]) != {"|", "-"}] == []


def test_every_model_that_is_said_to_conform_keeps_every_limit():
    table = next(part for part in section("The limits").split("\n\n") if part.startswith("| model |"))
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    names = {"batch": "batch_cosine_min"}
    standards = {limit: standard for (check, limit), (_, standard) in stated().items()
                 if check in {"parity", "retrieval", "invariance"}}  # fmt: skip
    for line in lines:
        figures = {
            names.get(name, name): float(cell) for name, cell in zip(head[1:-1], line[1:-1], strict=True) if cell
        }
        kept = all(value >= standards[name] for name, value in figures.items())
        assert line[-1] == ("conforms" if kept else "**fails** invariance"), line[0]


def test_every_file_the_page_links_to_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in link]
    assert [link for link in links if not (REPOSITORY / "conformance" / link).exists()] == []


def test_the_page_counts_the_texts_of_the_corpus():
    lines = (REPOSITORY / "conformance" / "corpora" / "feature-extraction.jsonl").read_bytes().count(b"\n")
    assert set(map(int, re.findall(r"\b(\d{3}) texts", PAGE))) == {lines}


@pytest.mark.usefixtures("_in_time")
def test_the_example_of_a_stricter_limit_is_a_manifest_that_loads(tmp_path):
    loaded = manifest.load(with_parts(tmp_path, example("A stricter limit", "yaml")))
    limits = loaded.variants["int4"].limits["parity"]
    assert (limits.cosine_mean, limits.cosine_p1) == (0.999, 0.9975)


@pytest.mark.usefixtures("_in_time")
def test_the_example_of_a_looser_limit_is_a_manifest_that_loads(tmp_path):
    loaded = manifest.load(with_parts(tmp_path, example("A looser limit", "yaml")))
    assert loaded.variants["int4"].limits["parity"].cosine_min == 0.88


@pytest.mark.usefixtures("_in_time")
@pytest.mark.parametrize("key", ["because", "until"])
def test_the_example_of_a_looser_limit_is_refused_without_its_reason_or_its_day(tmp_path, key):
    text = re.sub(rf"^ *{key}:.*\n", "", example("A looser limit", "yaml"), flags=re.MULTILINE)
    with pytest.raises(ManifestError, match=f"looser than the standard .* needs '{key}' beside it"):
        manifest.load(with_parts(tmp_path, text))


def test_the_example_of_a_looser_limit_is_refused_when_its_day_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_today", lambda: date(2027, 3, 2))
    with pytest.raises(ManifestError, match="expired on 2027-03-01"):
        manifest.load(with_parts(tmp_path, example("A looser limit", "yaml")))


@pytest.mark.usefixtures("_in_time")
def test_the_example_of_a_known_failure_is_a_manifest_that_loads(tmp_path):
    loaded = manifest.load(with_parts(tmp_path, example("A known failure", "yaml")))
    assert [(known.variant, known.check) for known in loaded.known_failures] == [("int4", "parity")]


def test_the_example_of_a_projects_own_check_is_found_and_runs(tmp_path, tmp_path_factory):
    shelf = tmp_path / "conformance" / "checks"
    shelf.mkdir(parents=True)
    code = re.search(r"^```python\n(.*?)^```", section("A project's own checks"), re.DOTALL | re.MULTILINE)
    (shelf / "unit_length.py").write_text(code[1])
    assert "unit-length" in kinds.names("checks", tmp_path)
    check = kinds.load("checks", "unit-length", tmp_path)
    assert check.check(good(tmp_path_factory.getbasetemp()), check.Options()).outcome == "passed"


def test_the_headings_of_the_page_are_in_order():
    levels = [len(marks) for marks in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL), re.M)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
