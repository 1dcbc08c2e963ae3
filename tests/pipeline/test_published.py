"""A model in the files that CodeT5 is published in, a pickle and no tokenizer.json: from manifest to a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelkit import manifest, model, pipeline
from modelkit.store import Store
from modelkit.vocabulary import Artifact, Fetching
from stand_ins import t5 as models

REPOSITORY = Path(__file__).parents[2]
MANIFEST = """\
name: tiny
task: text2text-generation
license: Apache-2.0
source:
  path: weights
  files: FILES
export: direct
signature:
  inputs:
    input_ids: int64[batch, encoder_sequence]
    attention_mask: int64[batch, encoder_sequence]
    decoder_input_ids: int64[batch, decoder_sequence]
    past_key_values.{0..1}.decoder.{key,value}: float32[batch, 4, past_decoder_sequence, 8]
    past_key_values.{0..1}.encoder.{key,value}: float32[batch, 4, encoder_sequence, 8]
    use_cache_branch: bool[1]
  outputs:
    logits: float32[batch, decoder_sequence, 272]
    present.{0..1}.decoder.{key,value}: float32[batch, 4, total_decoder_sequence, 8]
    present.{0..1}.encoder.{key,value}: float32[batch, 4, encoder_sequence, 8]
text: {max_tokens: 64}
generation: {max_tokens: 8}
variants:
  fp32: {scheme: fp32}
"""
SAFE = "[config.json, model.safetensors, tokenizer.json]"
TEXTS = ["def add(a, b):\n    return a + b", "  é 東京 "]


def files_of(name: str) -> str:
    """`source.files` of the project's own manifest."""
    return json.dumps(manifest.load(REPOSITORY / "manifests" / f"{name}.yaml").source.files)


def built(folder: Path, files: str) -> Artifact:
    (folder / "tiny.yaml").write_text(MANIFEST.replace("FILES", files))
    declared = manifest.load(folder / "tiny.yaml")
    build = pipeline.Pins(Store(folder / "store")).prepare(
        declared, declared.variants["fp32"], None, Fetching(declared.path.parent)
    )
    return pipeline.build(build)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("published")
    models.as_published(folder / "weights")
    return built(folder, files_of("codet5-small"))


@pytest.fixture(scope="module")
def converted_before(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("before")
    models.t5(folder / "weights")
    return built(folder, SAFE)


def test_the_finished_folder_has_a_tokenizer_json_and_no_pickle(published: Artifact) -> None:
    assert "tokenizer.json" in published.files
    assert not {"pytorch_model.bin", "vocab.json", "merges.txt", "added_tokens.json"} & set(published.files)


def test_the_model_is_the_one_that_safetensors_give(published: Artifact, converted_before: Artifact) -> None:
    assert published.files["model.onnx"] == converted_before.files["model.onnx"]


def test_the_texts_are_read_and_written_as_by_the_converted_model(
    published: Artifact, converted_before: Artifact
) -> None:
    found, expected = (model.load(artifact.folder, 1).generate(TEXTS) for artifact in (published, converted_before))
    assert found == expected
    assert all(found)


@pytest.mark.parametrize("name", ["codet5-small", "codet5-base"])
def test_the_manifests_name_every_file_that_is_read(name: str) -> None:
    wanted = {"config.json", "pytorch_model.bin", "vocab.json", "merges.txt", "added_tokens.json"}
    assert wanted | {"tokenizer_config.json", "special_tokens_map.json"} == set(json.loads(files_of(name)))
