"""The corpus of images and texts: what its script makes, and what its README says of it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modelkit.images import DATA_URL, Preprocessor, Settings
from modelkit.reference import recorded

CORPORA = Path(__file__).parents[2] / "conformance" / "corpora"
CORPUS = CORPORA / "image-feature-extraction.jsonl"
ROWS = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
IMAGES = [row for row in ROWS if row["text"].startswith(DATA_URL)]
SECTION = (CORPORA / "README.md").read_text(encoding="utf-8").split("## image-feature-extraction.jsonl", 1)[1]


def opened(row: dict[str, str]) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(row["text"].partition(",")[2])))


def test_the_script_makes_the_committed_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-S", str(CORPORA / "make_images.py")]
    made = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, env={"PYTHONHASHSEED": "3"}).stdout
    assert made == CORPUS.read_bytes()


def test_there_are_at_least_sixty_of_both() -> None:
    assert min(len(IMAGES), len(ROWS) - len(IMAGES)) >= 60


def test_the_file_is_small() -> None:
    assert CORPUS.stat().st_size < 400_000


def test_rows_are_canonical_sorted_and_have_ids_of_their_own() -> None:
    assert CORPUS.read_text(encoding="utf-8") == "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    order = [(row["group"], row["id"]) for row in ROWS]
    assert order == sorted(order)
    assert len({row["id"] for row in ROWS}) == len({row["text"] for row in ROWS}) == len(ROWS)
    assert all(re.fullmatch(r"[a-z]{2}-\d{4}", row["id"]) for row in ROWS)
    assert len({(row["id"][:2], row["group"]) for row in ROWS}) == len({row["group"] for row in ROWS})


def test_a_golden_takes_an_image_of_every_kind_and_texts() -> None:
    chosen = recorded.select(ROWS)
    assert {row["group"] for row in chosen} == {row["group"] for row in ROWS}
    assert {row["group"] for row in chosen if row["text"].startswith(DATA_URL)} == {row["group"] for row in IMAGES}


def test_no_text_has_white_space_around_it() -> None:
    assert all(row["text"] == row["text"].strip() != "" for row in ROWS)


@pytest.mark.parametrize("row", IMAGES, ids=lambda row: row["id"])
def test_every_image_is_valid_and_can_be_prepared(row: dict[str, str]) -> None:
    opened(row).verify()
    opened(row).load()
    found = Preprocessor(Settings()).pixel_values(row["text"])
    assert found.shape == (3, 224, 224)
    assert np.isfinite(found).all()


def test_every_mode_of_png_appears() -> None:
    assert {opened(row).mode for row in IMAGES} == {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}
    assert any("transparency" in opened(row).info for row in IMAGES)


def test_no_two_images_look_the_same() -> None:
    seen = Counter(
        Preprocessor(Settings()).pixel_values(row["text"]).tobytes() for row in IMAGES if "ie-" not in row["id"]
    )
    assert max(seen.values()) == 1


def test_the_readme_counts_images_and_texts() -> None:
    assert f"{len(IMAGES)} images and {len(ROWS) - len(IMAGES)} texts" in SECTION
