"""A zero-shot classifier from manifest to verdicts: the checks of its task are the ones it has to pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import stand_ins
from modelkit import conformance, manifest, model, pipeline
from modelkit.store import Store
from modelkit.vocabulary import Fetching
from stand_ins.deberta_v2 import deberta_v2

MANIFEST = """\
name: tiny
task: zero-shot-classification
license: MIT
source:
  path: weights
  files: [config.json, "*.safetensors", tokenizer.json]
export: direct
signature:
  inputs:
    input_ids: int64[batch, sequence]
    attention_mask: int64[batch, sequence]
  outputs:
    logits: float32[batch, 3]
text: {max_tokens: 32}
hypothesis_template: "it is {}"
variants:
  int8:
    channel: dev
    scheme: w8a8-per-token
    budget: 1 MB
"""


@pytest.fixture(scope="module")
def examination(tmp_path_factory: pytest.TempPathFactory) -> conformance.Examination:
    folder = tmp_path_factory.mktemp("zero-shot")
    deberta_v2(folder / "weights")
    (folder / "tiny.yaml").write_text(MANIFEST)
    corpus = folder / "conformance" / "corpora" / "zero-shot-classification.jsonl"
    corpus.parent.mkdir(parents=True)
    pairs = [
        f"the {one} {'sat on the ' * (number % 5)}mat\nthe {other} is a {one}"
        for number, (one, other) in enumerate(zip(stand_ins.WORDS * 2, stand_ins.WORDS[3:] * 2, strict=False))
    ]
    rows = [{"id": f"t{number:03}", "text": text, "group": "tiny"} for number, text in enumerate(pairs)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    declared = manifest.load(folder / "tiny.yaml")
    build = pipeline.Pins(Store(folder / "store")).prepare(
        declared, declared.variants["int8"], None, Fetching(declared.path.parent)
    )
    return conformance.Examination(build, pipeline.build(build))


def test_every_check_of_the_task_passes(examination: conformance.Examination) -> None:
    verdicts = {verdict.check: verdict for verdict in conformance.examine(examination)}
    outcomes = {check: verdict.outcome for check, verdict in verdicts.items()}
    assert outcomes == {**dict.fromkeys(verdicts, "passed"), "golden": "skipped"}, verdicts
    assert "logits" in verdicts
    assert "parity" not in verdicts


def test_vectors_are_compared_as_vectors(tmp_path: Path) -> None:
    planned = conformance.plan(manifest.load(stand_ins.manifest(tmp_path)))
    assert "parity" in planned
    assert "logits" not in planned


def test_the_finished_folder_classifies_by_the_manifests_template(examination: conformance.Examination) -> None:
    folder = examination.artifact.folder
    assert {"config.json", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    loaded = model.load(folder, threads=1)
    told = loaded.classify("a cat", ["dog", "tree"], hypothesis_template="it is {}")
    assert loaded.classify("a cat", ["dog", "tree"]) == told
