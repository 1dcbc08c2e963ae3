"""Any image: whatever its mode and size, it gets a vector; one kind of image that gets none, or another, is found.

Two of the four outcomes have no test. The check is never skipped: it is planned only for tasks that take images. And it
can always run: all it needs is the artifact, and an artifact that cannot be used fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from modelkit import conformance, images, model
from modelkit.checks import any_image
from modelkit.checks.any_image import Drawn, made
from modelkit.vocabulary import Choice, Subject, Verdict
from subjects import copied, good, pictures

VISION = "vision_model.onnx"


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return replace(pictures(tmp_path_factory.getbasetemp()), examples=5)


def verdict_of(subject: Subject, **limits: float) -> Verdict:
    return any_image.check(subject, any_image.Options(**limits))


def built(subject: Subject, edit: Callable[[onnx.ModelProto], None], folder: Path) -> Subject:
    """The subject whose image model was built with a fault."""
    spoiled = copied(subject, folder / "spoiled")
    path = spoiled.artifact.folder / VISION
    proto = onnx.load(path)
    edit(proto)
    onnx.save(proto, path)
    return replace(spoiled, open=lambda artifact, threads=None: model.load(artifact.folder))


def behind(proto: onnx.ModelProto, *nodes: Any, **constants: Any) -> None:
    """Put nodes between what was the output, now `before`, and the output."""
    for node in proto.graph.node:
        node.output[:] = ["before" if name == "image_embeds" else name for name in node.output]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )


def allowing(subject: Subject, pixels: int) -> Subject:
    """The subject whose manifest lets images of so many pixels pass."""
    options = replace(
        subject.manifest.task.options, image=replace(subject.manifest.task.options.image, max_pixels=pixels)
    )
    return replace(subject, manifest=replace(subject.manifest, task=Choice(subject.manifest.task.kind, options)))


def test_a_good_artifact_passes_and_says_what_was_tried(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.worst) == ("passed", ())
    assert verdict.measured["norm_error"] < 1e-5
    assert verdict.measured["images"] > len(any_image.MODES) + subject.examples


def test_it_is_planned_for_the_tasks_that_take_images_and_for_no_others(subject, tmp_path_factory):
    assert "any-image" in conformance.plan(subject.manifest)
    assert "any-image" not in conformance.plan(good(tmp_path_factory.getbasetemp()).manifest)


def test_a_graph_that_divides_by_the_contrast_fails_with_an_image_of_one_colour(subject, tmp_path):
    def divide(proto: onnx.ModelProto) -> None:
        behind(
            proto,
            helper.make_node("ReduceMax", ["pixel_values", "place"], ["most"], keepdims=0),
            helper.make_node("ReduceMin", ["pixel_values", "place"], ["least"], keepdims=0),
            helper.make_node("Sub", ["most", "least"], ["contrasts"]),
            helper.make_node("ReduceMax", ["contrasts", "colour"], ["contrast"], keepdims=1),
            helper.make_node("Div", ["before", "contrast"], ["stretched"]),
            helper.make_node("LpNormalization", ["stretched"], ["image_embeds"], axis=-1),
            place=np.array([2, 3]), colour=np.array([1]),
        )  # fmt: skip

    verdict = verdict_of(built(subject, divide, tmp_path))
    assert verdict.outcome == "failed"
    told = str(verdict.worst)
    assert "made(Drawn('RGB', 64, 64, 'black'))" in told
    assert "'noise'" not in told.replace("Drawn('RGB', 1, 1, 'noise')", "")


def test_vectors_that_are_not_of_length_one_fail(subject, tmp_path):
    def stretch(proto: onnx.ModelProto) -> None:
        behind(proto, helper.make_node("Mul", ["before", "factor"], ["image_embeds"]), factor=np.float32(1.01))

    sentence = verdict_of(built(subject, stretch, tmp_path)).sentence
    assert sentence.startswith("a vector has the length 1.01, 0.01 from 1 (limit 0.001): ")


def test_vectors_that_hang_on_their_place_in_the_batch_fail(subject, tmp_path):
    def add_up(proto: onnx.ModelProto) -> None:
        behind(proto, helper.make_node("CumSum", ["before", "axis"], ["image_embeds"]), axis=np.int64(0))

    verdict = verdict_of(built(subject, add_up, tmp_path), norm_error=1e9)
    assert verdict.sentence.startswith("a file's vector is not that of its pixels (")


def test_a_graph_that_was_made_for_one_image_fails(subject, tmp_path):
    def keep(proto: onnx.ModelProto) -> None:
        behind(proto, helper.make_node("Reshape", ["before", "one"], ["image_embeds"]), one=np.array([1, 16]))

    assert verdict_of(built(subject, keep, tmp_path)).sentence.startswith("the model does not take it (")


def test_an_image_that_is_turned_grey_wrongly_fails_as_a_file(subject, monkeypatch):
    opened = images._opened

    def inverted(picture: Any) -> Any:
        from io import BytesIO

        from PIL import Image

        name, file = opened(picture)
        image = Image.open(file)
        if image.mode != "LA":
            file.seek(0)
            return name, file
        out = BytesIO()
        Image.new("LA", image.size, 7).save(out, "PNG")
        out.seek(0)
        return name, out

    monkeypatch.setattr(images, "_opened", inverted)
    verdict = verdict_of(subject)
    assert verdict.sentence.startswith("a file's vector is not that of its pixels (")
    assert "made(Drawn('LA', 37, 53, 'noise'))" in verdict.sentence


def test_a_mode_that_is_refused_fails_with_the_call_that_shows_it(subject, monkeypatch):
    converted = images.Preprocessor._converted

    def refuse(self: Any, image: Any) -> Any:
        if image.mode == "CMYK":
            raise images.InputError("no ink, please")
        return converted(self, image)

    monkeypatch.setattr(images.Preprocessor, "_converted", refuse)
    [found] = verdict_of(subject).worst
    assert found["reason"] == "the model does not take it (no ink, please)"
    call = found["again"].partition(" with ")[0]
    with pytest.raises(images.InputError, match="no ink, please"):
        eval(call, {"load": model.load, "folder": subject.artifact.folder, "made": made, "Drawn": Drawn})


def test_vectors_of_another_width_than_the_graph_declares_fail(subject):
    right = subject.open(subject.artifact)
    opened = SimpleNamespace(embed_images=lambda some, batch_size=8: right.embed_images(some)[:, :15])
    verdict = verdict_of(replace(subject, open=lambda artifact, threads=None: opened))
    assert verdict.sentence.startswith("the vectors are float32[3, 15], not float32[3, 16]: ")


def test_vectors_that_are_not_finite_fail(subject):
    right = subject.open(subject.artifact)

    def embed(some: Any, batch_size: int = 8) -> Any:
        rows = right.embed_images(some)
        rows[[getattr(one, "size", None) == (1, 1) for one in some]] = np.nan
        return rows

    verdict = verdict_of(replace(subject, open=lambda artifact, threads=None: SimpleNamespace(embed_images=embed)))
    assert verdict.sentence.startswith("1 of 3 vectors are not finite: ")
    assert "made(Drawn('RGB', 1, 1, 'noise'))" in verdict.sentence


@pytest.mark.parametrize("pixels", [1, 100, 5000])
def test_images_that_the_manifest_refuses_are_not_tried(subject, pixels):
    verdict = verdict_of(allowing(subject, pixels * 32 * 32))
    assert verdict.outcome == "passed"


@given(st.sampled_from(any_image.MODES), st.integers(1, 60), st.integers(1, 60),
       st.sampled_from(["noise", "black", "white"]))  # fmt: skip
def test_an_image_is_made_as_it_was_drawn_and_the_same_every_time(mode, width, height, filling):
    image, again = (made(Drawn(mode, width, height, filling)) for _ in range(2))
    assert (image.mode, image.size) == (mode, (width, height))
    assert image.tobytes() == again.tobytes()


@pytest.fixture(scope="module")
def vectors(subject: Subject) -> any_image._Vectors:
    return any_image._Vectors(subject, any_image.Options())


@given(width=st.integers(1, 10**6), height=st.integers(1, 10**6))
def test_no_image_is_larger_or_thinner_than_is_tried(vectors, width, height):
    kept = vectors.kept(Drawn("RGB", width, height, "noise"))
    assert min(kept.width, kept.height) >= 1
    assert kept.width * kept.height <= any_image.LARGEST
    assert max(kept.width, kept.height) <= any_image.THINNEST * min(kept.width, kept.height)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json"])
def test_a_folder_that_cannot_be_used_fails(subject, tmp_path, name):
    spoiled = copied(subject, tmp_path / "spoiled")
    (spoiled.artifact.folder / name).write_text("{" if name == "tokenizer.json" else json.dumps({"size": -1}))
    assert verdict_of(spoiled).sentence.startswith("the finished folder cannot be used: ")
