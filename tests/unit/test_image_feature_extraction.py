"""tasks/image_feature_extraction.py on the small CLIP: its two parts, and what checks see of it."""

from __future__ import annotations

import base64
import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import small_models
from modelkit import conformance, kinds, manifest, model, pipeline
from modelkit.errors import InputError, StageError
from modelkit.exporters import direct
from modelkit.store import Store
from modelkit.tasks import image_feature_extraction as task
from modelkit.vocabulary import Fetching
from stand_ins import WORDS
from stand_ins.clip import clip
from stand_ins.pictures import picture
from subjects import CLIP

PICTURES = [picture(mode, *size) for mode in ("RGB", "L", "P", "RGBA") for size in ((40, 30), (9, 50), (32, 32))]
TEXTS = ["a cat", "the dog ran over the bank", "", "bird", "not a river and not a tree"]


def url(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, weights and a corpus of images and texts."""
    folder = tmp_path_factory.mktemp("clip")
    clip(folder / "weights")
    corpora = folder / "conformance" / "corpora"
    corpora.mkdir(parents=True)
    texts = [url(image) for image in PICTURES] + [f"{one} {other}" for one in WORDS[:4] for other in WORDS[6:10]]
    rows = [{"id": f"t{n:03}", "text": text, "group": "tiny"} for n, text in enumerate(texts)]
    (corpora / "image-feature-extraction.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny-clip.yaml").write_text(CLIP)
    return folder


@pytest.fixture(scope="module")
def builds(project: Path) -> dict[str, tuple[Any, Any]]:
    """Variant -> its build and its finished artifact."""
    declared = manifest.load(project / "tiny-clip.yaml")
    pins = pipeline.Pins(Store(project / "store"))
    prepared = {name: pins.prepare(declared, variant, None, Fetching(project))
                for name, variant in declared.variants.items()}  # fmt: skip
    return {name: (build, pipeline.build(build)) for name, build in prepared.items()}


@pytest.fixture
def folder(builds: dict[str, tuple[Any, Any]], tmp_path: Path) -> Path:
    """A finished folder that a test may spoil."""
    made = shutil.copytree(builds["fp32"][1].folder, tmp_path / "finished")
    made.chmod(0o755)
    for path in made.iterdir():
        path.chmod(0o644)
    return made


@pytest.fixture(scope="module")
def tiny(builds: dict[str, tuple[Any, Any]]) -> Any:
    return model.load(builds["fp32"][1].folder, 1)


# The finished folder


def test_a_finished_folder_has_both_parts_and_what_a_consumer_needs(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        *("text_model.onnx", "vision_model.onnx", "config.json", "tokenizer.json", "preprocessor_config.json"),
        *("modelkit.json", "SHA256SUMS"),
    }


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_every_check_passes_on_the_stand_in(builds: dict[str, tuple[Any, Any]], variant: str) -> None:
    build, artifact = builds[variant]
    verdicts = conformance.examine(conformance.Examination(build, artifact))
    not_judged = {"golden": "there is no tiny-clip.json; record one with `modelkit golden`"}
    if variant == "fp32":
        not_judged["coverage"] = "the scheme fp32 promises no fewer bits than float32 has"
        not_judged["saturation"] = "the model multiplies no uint8 with a stored int8 matrix"
        not_judged["zero-points"] = "no graph computes with integers that it quantizes itself"
    assert {verdict.check: verdict.sentence for verdict in verdicts if verdict.outcome != "passed"} == not_judged
    assert {"parity", "invariance", "signature"} <= {verdict.check for verdict in verdicts}


# Embedding


def test_each_part_gives_rows_of_length_one_in_one_space(tiny: Any) -> None:
    images, texts = tiny.embed_images(PICTURES), tiny.embed_texts(TEXTS)
    assert (images.shape, texts.shape) == ((len(PICTURES), 16), (len(TEXTS), 16))
    assert images.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([images, texts]), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_rows_come_in_the_given_order_whatever_the_batch(tiny: Any, size: int) -> None:
    alone = np.concatenate([tiny.embed_images([image]) for image in PICTURES])
    np.testing.assert_allclose(tiny.embed_images(PICTURES, batch_size=size), alone, atol=1e-6)
    alone = np.concatenate([tiny.embed_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(tiny.embed_texts(TEXTS, batch_size=size), alone, atol=1e-6)


def test_outputs_mixes_images_and_texts_in_the_given_order(tiny: Any) -> None:
    mixed = [TEXTS[0], url(PICTURES[0]), TEXTS[1], TEXTS[2], url(PICTURES[3]), url(PICTURES[1])]
    found = tiny.outputs(mixed, batch_size=2)
    np.testing.assert_allclose(found[[0, 2, 3]], tiny.embed_texts(TEXTS[:3]), atol=1e-6)
    np.testing.assert_allclose(found[[1, 4, 5]], tiny.embed_images([PICTURES[n] for n in (0, 3, 1)]), atol=1e-6)


def test_similarity_is_the_cosine_of_each_image_with_each_text(tiny: Any) -> None:
    found = tiny.similarity(PICTURES, TEXTS)
    assert found.shape == (len(PICTURES), len(TEXTS))
    np.testing.assert_allclose(found[2, 1], tiny.embed_images(PICTURES)[2] @ tiny.embed_texts(TEXTS)[1], atol=1e-6)


def test_nothing_gives_no_rows(tiny: Any) -> None:
    for found in (tiny.embed_images([]), tiny.embed_texts([]), tiny.outputs([])):
        assert (found.shape, found.dtype) == ((0, 16), np.float32)


def test_long_text_is_cut_and_keeps_its_end(tiny: Any) -> None:
    words = ["cat"] * 22
    np.testing.assert_array_equal(
        tiny.embed_texts([" ".join(words + ["dog"] * 50)]), tiny.embed_texts([" ".join(words)])
    )


def test_one_input_without_a_list_is_refused(tiny: Any) -> None:
    for call in (tiny.embed_texts, tiny.embed_images, tiny.outputs):
        with pytest.raises(InputError, match="a list of"):
            call("a cat")
    with pytest.raises(InputError, match="a list of images"):
        tiny.embed_images(PICTURES[0])


def test_an_image_that_is_none_is_told(tiny: Any) -> None:
    with pytest.raises(InputError, match="no image of a known format"):
        tiny.embed_images([PICTURES[0], b"nothing"])
    with pytest.raises(InputError, match="no base64"):
        tiny.outputs(["data:image/png;base64,*"])


# Parts


def test_a_text_needs_no_image_model(folder: Path, tiny: Any) -> None:
    (folder / "vision_model.onnx").unlink()
    loaded = model.load(folder, 1)
    np.testing.assert_array_equal(loaded.embed_texts(TEXTS), tiny.embed_texts(TEXTS))
    np.testing.assert_array_equal(loaded.outputs(TEXTS), tiny.embed_texts(TEXTS))
    with pytest.raises(StageError, match="the model has no part 'vision_model'"):
        loaded.embed_images(PICTURES)


def test_an_image_needs_no_text_model(folder: Path, tiny: Any) -> None:
    (folder / "text_model.onnx").write_bytes(b"")
    np.testing.assert_array_equal(model.load(folder, 1).embed_images(PICTURES), tiny.embed_images(PICTURES))


def test_a_part_with_other_inputs_is_told(folder: Path) -> None:
    shutil.copyfile(folder / "text_model.onnx", folder / "vision_model.onnx")
    with pytest.raises(StageError, match="vision_model takes input_ids, attention_mask and gives text_embeds"):
        model.load(folder, 1).embed_images(PICTURES)


@pytest.mark.parametrize(
    ("own", "made"), [({"crop_size": 30}, "30 x 30"), ({"do_center_crop": False}, "an image's own size")]
)
def test_image_settings_of_another_model_are_told(folder: Path, own: dict[str, Any], made: str) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    with pytest.raises(StageError, match=f"makes {made}, the model takes 32 x 32"):
        model.load(folder, 1).embed_images(PICTURES)


# Before the export


def test_a_source_without_image_settings_is_refused(tmp_path: Path) -> None:
    source = clip(tmp_path / "source")
    task.verify(source, 64)
    (source / "preprocessor_config.json").unlink()
    with pytest.raises(StageError, match=r"no preprocessor_config\.json in the source; add it to `source\.files`"):
        task.verify(source, 64)


def test_a_tokenizer_larger_than_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="knows ids up to 49, the embedding table ends at 48"):
        task.verify(clip(tmp_path / "source"), 49)


@pytest.mark.parametrize(
    "line", ["text: {max_tokens: 2}", "image: {max_pixels: 0}", "image: {max_pixels: 89478486}", "text: {pooling: cls}"]
)
def test_options_that_make_no_sense_are_refused(project: Path, tmp_path: Path, line: str) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(CLIP.replace("text: {max_tokens: 24}", line))
    with pytest.raises(Exception, match=r"max_tokens|max_pixels|pooling"):
        manifest.load(path)


# Schemes


@pytest.mark.parametrize("kind", kinds.names("schemes"))
def test_every_scheme_keeps_both_parts_near_float32(tmp_path: Path, kind: str) -> None:
    source = clip(tmp_path / "source", text_config={"vocab_size": 600})
    whole = declared(tmp_path)
    for name in ("converted", "quantized"):
        (tmp_path / name).mkdir()
    direct.export(whole, source, tmp_path / "converted", direct.Options())
    for part, feed in FEEDS.items():
        before, made = tmp_path / "converted" / part, tmp_path / "quantized" / part
        expected = small_models.run(before / "model.onnx", feed)[0]
        found = small_models.run(small_models.quantized(before, made, kind) / "model.onnx", feed)[0]
        # onnxruntime's own recipe saturates on processors without VNNI, which our schemes do not.
        least = {"w4a8-per-token": 0.85, "matmul-nbits": 0.85, "int8-dynamic": 0.9, "int8-static": 0.9}.get(kind, 0.99)
        assert small_models.cosines(found, expected).min() > least, part


def test_the_patches_stay_in_float32(tmp_path: Path) -> None:
    source = clip(tmp_path / "source")
    (tmp_path / "converted").mkdir()
    direct.export(declared(tmp_path), source, tmp_path / "converted", direct.Options())
    made = small_models.quantized(tmp_path / "converted" / "vision_model", tmp_path / "made", "w8a8-per-token")
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(made / "model.onnx").graph.initializer}
    assert stored["vision_model.embeddings.patch_embedding.weight"] == onnx.TensorProto.FLOAT
    assert stored["visual_projection.weight/int8"] == onnx.TensorProto.INT8
    matrices = {name for name in stored if name.endswith(("_proj.weight", "fc1.weight", "fc2.weight"))}
    assert matrices == set()


def declared(folder: Path) -> Any:
    path = folder / "tiny.yaml"
    path.write_text(CLIP)
    return manifest.load(path)


FEEDS = {
    "text_model": {
        "input_ids": np.array([[48, 5, 9, 2, 49], [48, 300, 49, 0, 0]]),
        "attention_mask": np.array([[1] * 5, [1] * 3 + [0] * 2]),
    },
    "vision_model": {"pixel_values": np.random.default_rng(4).standard_normal((3, 3, 32, 32), np.float32)},
}
