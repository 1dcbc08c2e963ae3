"""The corpora of the tasks that write text: what their README says of them must be true of the files."""

from __future__ import annotations

import json
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

CORPORA = Path(__file__).parents[2] / "conformance" / "corpora"
tasks = pytest.mark.parametrize("task", ["text-generation", "text2text-generation"])


def lines_of(task: str) -> list[str]:
    return (CORPORA / f"{task}.jsonl").read_bytes().decode("utf-8").removesuffix("\n").split("\n")


def rows_of(task: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines_of(task)]


def section_of(task: str) -> str:
    readme = (CORPORA / "README.md").read_text("utf-8")
    return readme.split(f"## {task}.jsonl\n", 1)[1].split("\n## ", 1)[0]


@tasks
def test_there_are_at_least_sixty_texts_and_no_two_are_alike(task: str) -> None:
    texts = [row["text"].strip().lower() for row in rows_of(task)]
    assert len(texts) >= 60
    assert len(set(texts)) == len(texts)
    assert all(texts)


@tasks
def test_every_line_is_canonical_json_with_exactly_three_keys(task: str) -> None:
    for line in lines_of(task):
        row = json.loads(line)
        assert list(row) == ["id", "text", "group"]
        assert json.dumps(row, ensure_ascii=False) == line


@tasks
def test_rows_are_sorted_and_their_ids_are_unique_and_belong_to_their_group(task: str) -> None:
    rows = rows_of(task)
    assert [(row["group"], row["id"]) for row in rows] == sorted((row["group"], row["id"]) for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(re.fullmatch(r"[a-z]{2}-\d{4}", row["id"]) for row in rows)
    assert len({(row["id"][:2], row["group"]) for row in rows}) == len({row["group"] for row in rows})


@tasks
def test_the_readme_names_the_digest_of_the_file(task: str) -> None:
    assert f"sha256: `{sha256((CORPORA / f'{task}.jsonl').read_bytes()).hexdigest()}`" in section_of(task)


@tasks
def test_the_readme_counts_the_texts_and_their_characters(task: str) -> None:
    rows = rows_of(task)
    stated = re.findall(r"^\| `([a-z]+)` \| (\d+) \| (\d+) \| (\d+) \|", section_of(task), re.MULTILINE)
    lengths = {group: [len(row["text"]) for row in rows if row["group"] == group] for group, *_ in stated}
    assert {group: int(count) for group, count, *_ in stated} == Counter(row["group"] for row in rows)
    assert [(min(found), max(found)) for found in lengths.values()] == [
        (int(low), int(high)) for *_, low, high in stated
    ]
    assert f"\n{len(rows)} " in section_of(task)
