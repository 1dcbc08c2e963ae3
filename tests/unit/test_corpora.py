"""The corpora are part of the standard: what their README says of them must be true of the files."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

CORPORA = Path(__file__).parents[2] / "conformance" / "corpora"
ALL = sorted(CORPORA.rglob("*.jsonl"))
KEYS = ["id", "text", "group"]
FEWEST = {
    "feature-extraction": 300,
    "calibration/feature-extraction": 100,
    "text-generation": 60,
    "text2text-generation": 60,
}
"""Texts by corpus; 120 where nothing is said."""
SCRIPTS = {"feature-extraction": 10, "calibration/feature-extraction": 10, "zero-shot-classification": 10}
"""Writing systems by corpus; a model of one language is not asked in ten."""


def name_of(corpus: Path) -> str:
    """The task, after the folder of a corpus that is in one."""
    return corpus.relative_to(CORPORA).with_suffix("").as_posix()


@pytest.fixture(scope="module", params=ALL, ids=name_of)
def corpus(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def section(corpus) -> str:
    """What the README says of one corpus."""
    sections = re.split(r"^## ", (CORPORA / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return next(text for text in sections if text.startswith(f"{name_of(corpus)}.jsonl\n"))


@pytest.fixture(scope="module")
def lines(corpus) -> list[str]:
    # Not splitlines(): a text may hold a character, such as U+2028, that is a line end to Python and not to JSON.
    return corpus.read_bytes().decode("utf-8").removesuffix("\n").split("\n")


@pytest.fixture(scope="module")
def rows(lines: list[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines]


def scripts_of(text: str) -> set[str]:
    return {unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha()}


def test_there_are_enough_texts(corpus, rows):
    assert len(rows) >= FEWEST.get(name_of(corpus), 120)


def test_every_line_is_canonical_json_with_exactly_three_keys(lines):
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        assert list(row) == KEYS, f"line {number}"
        assert json.dumps(row, ensure_ascii=False) == line, f"line {number}"


def test_the_file_ends_with_one_newline_and_has_no_carriage_return(corpus):
    data = corpus.read_bytes()
    assert data.endswith(b"}\n")
    assert b"\r" not in data


def test_ids_are_unique_and_well_formed(rows):
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]{2}-\d{4}", name) for name in ids)


def test_an_id_prefix_belongs_to_one_group(rows):
    pairs = {(row["id"][:2], row["group"]) for row in rows}
    assert len(pairs) == len({group for _, group in pairs}) == len({prefix for prefix, _ in pairs})


def test_rows_are_sorted_by_group_and_then_id(rows):
    order = [(row["group"], row["id"]) for row in rows]
    assert order == sorted(order)


def test_texts_are_unique_even_without_case_accents_and_outer_space(rows):
    # Two texts with one vector would be each other's trivial neighbour.
    repeated = [text for text, count in Counter(bare(row["text"]) for row in rows).items() if count > 1]
    assert repeated == []


def bare(text: str) -> str:
    """Without case, accents and outer space. An uncased tokenizer drops all three."""
    decomposed = unicodedata.normalize("NFD", text.strip().lower())
    return "".join(mark for mark in decomposed if unicodedata.category(mark) != "Mn")


@pytest.mark.parametrize("calibration", sorted((CORPORA / "calibration").glob("*.jsonl")), ids=name_of)
def test_no_text_that_a_scheme_is_calibrated_on_is_scored(calibration):
    scored = {
        bare(json.loads(line)["text"])
        for path in ALL
        if path.parent.name != "calibration"
        for line in path.read_text("utf-8").removesuffix("\n").split("\n")
    }
    seen = {bare(json.loads(line)["text"]) for line in calibration.read_text("utf-8").removesuffix("\n").split("\n")}
    assert not seen & scored


def test_no_text_is_empty(rows):
    assert all(row["text"].strip() for row in rows)


def test_mail_addresses_name_only_the_reserved_domain(rows):
    hosts = {host for row in rows for host in re.findall(r"\w@([\w.-]*\w)", row["text"])}
    assert hosts <= {"example.com"}


def test_enough_scripts_appear(corpus, rows):
    assert len(set().union(*(scripts_of(row["text"]) for row in rows))) >= SCRIPTS.get(name_of(corpus), 1)


def test_the_readme_names_the_digest_of_the_file(section, corpus):
    stated = re.search(r"^sha256: `([0-9a-f]{64})`$", section, re.MULTILINE)
    assert stated, "no line of the form sha256: `...`"
    assert stated[1] == hashlib.sha256(corpus.read_bytes()).hexdigest()


def test_the_readme_counts_the_texts_of_each_group(section, rows):
    stated = {name: int(count) for name, count in re.findall(r"^\| ([a-z-]+) \| (\d+) \|", section, re.MULTILINE)}
    assert stated == {**Counter(row["group"] for row in rows), "all": len(rows)}


def test_the_readme_spreads_as_many_texts_over_lengths_as_there_are(section, rows):
    stated = re.findall(r"^\| \d+ (?:to \d+|and more) \| (\d+) \|$", section, re.MULTILINE)
    # Not every corpus is told by tokens.
    assert sum(map(int, stated)) in ([len(rows)] if "| tokens |" in section else [0])


def test_the_readme_tells_how_long_the_pairs_of_each_group_are():
    path = CORPORA / "zero-shot-classification.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").removesuffix("\n").split("\n")]
    page = (CORPORA / "README.md").read_text(encoding="utf-8").split(f"## {path.name}", 1)[1]
    stated = re.findall(r"^\| ([a-z]+) \| \d+ \| (\d+) \| ([\d.]+) \| (\d+) \|", page, re.MULTILINE)
    for group, *figures in stated:
        lengths = [len(row["text"]) for row in rows if group in ("all", row["group"])]
        assert [float(figure) for figure in figures] == [min(lengths), median(lengths), max(lengths)], group


def test_every_pair_has_a_premise_and_a_hypothesis():
    for line in (CORPORA / "zero-shot-classification.jsonl").read_text("utf-8").removesuffix("\n").split("\n"):
        premise, _, hypothesis = json.loads(line)["text"].rpartition("\n")
        assert premise.strip(), line
        assert hypothesis.strip(), line
