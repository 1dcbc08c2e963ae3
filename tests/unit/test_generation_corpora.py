"""The corpora of the tasks that write text: how long their texts are (what all corpora share is in test_corpora)."""

from __future__ import annotations

import json
import re
from collections import Counter
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
def test_the_readme_counts_the_texts_and_their_characters(task: str) -> None:
    rows = rows_of(task)
    stated = re.findall(r"^\| ([a-z]+) \| (\d+) \| (\d+) \| (\d+) \|", section_of(task), re.MULTILINE)
    lengths = {group: [len(row["text"]) for row in rows if row["group"] == group] for group, *_ in stated}
    assert {group: int(count) for group, count, *_ in stated} == Counter(row["group"] for row in rows)
    assert [(min(found), max(found)) for found in lengths.values()] == [
        (int(low), int(high)) for *_, low, high in stated
    ]
    assert f"\n{len(rows)} " in section_of(task)
