"""The main job on the real all-MiniLM-L6-v2, and its artifacts in the hands of someone who has only onnxruntime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from modelkit import conformance, manifest

REPOSITORY = Path(__file__).parents[2]
MANIFEST = "manifests/minilm-l6.yaml"
BYTES = {"dev": 23_000_000, "prod": 13_300_000}
TEXTS = (
    "A cat sat on the mat.",
    "Ein ganz anderer Satz, und zwar auf Deutsch.",
    "def add(a, b):\n    return a + b",
    "one " * 120,
)
Embed = Callable[[list[str]], np.ndarray]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, real_store: Path) -> Path:
    """The two finished folders, made by the README's first command."""
    build = tmp_path_factory.mktemp("minilm")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--modelkit",
        MANIFEST,
        f"--modelkit-build={build}",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "MODELKIT_STORE": str(real_store)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    checks = len(conformance.plan(manifest.load(REPOSITORY / MANIFEST)))
    assert f"{2 * checks} passed" in done.stdout
    return build


@pytest.fixture(params=["dev", "prod"])
def folder(request: pytest.FixtureRequest, finished: Path) -> Path:
    return finished / request.param / "out" / "Final" / "minilm-l6"


@pytest.fixture
def embed(folder: Path) -> Embed:
    """What a consumer writes: tokenizers, onnxruntime, the documented inputs, nothing of ours."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()

    def embed(texts: list[str]) -> np.ndarray:
        encoded = tokenizer.encode_batch(texts)
        ids = np.array([one.ids for one in encoded], np.int64)
        mask = np.array([one.attention_mask for one in encoded], np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return session.run(["sentence_embedding"], feed)[0]

    return embed


def test_each_artifact_fits_its_size(folder: Path) -> None:
    assert (folder / "model.onnx").stat().st_size <= BYTES[folder.parents[2].name]


def test_int4_is_at_least_40_percent_smaller_than_int8(finished: Path) -> None:
    int8, int4 = (finished / channel / "out/Final/minilm-l6/model.onnx" for channel in ("dev", "prod"))
    assert int4.stat().st_size <= 0.6 * int8.stat().st_size


def test_plain_onnxruntime_gives_unit_vectors(embed: Embed) -> None:
    vectors = embed(list(TEXTS))
    assert vectors.shape == (len(TEXTS), 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_a_text_is_the_same_alone_and_in_a_padded_batch(embed: Embed) -> None:
    together = embed(list(TEXTS))
    alone = np.concatenate([embed([text]) for text in TEXTS])
    assert (together * alone).sum(1).min() >= 0.9999


def test_near_texts_are_nearer_than_far_ones(embed: Embed) -> None:
    cat, kitten, invoice = embed(["The cat sleeps.", "A kitten is asleep.", "Please pay the invoice by Friday."])
    assert cat @ kitten > cat @ invoice + 0.3


def test_our_own_loader_agrees_with_plain_onnxruntime(folder: Path, embed: Embed) -> None:
    from modelkit import model

    assert model.load(folder).embed(list(TEXTS)) == pytest.approx(embed(list(TEXTS)), abs=1e-5)


def test_the_sums_in_the_folder_are_those_of_its_files(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    assert done.returncode == 0
