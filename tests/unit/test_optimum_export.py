"""exporters/optimum.py without its environment: what it asks, what it makes of the answer, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small_models
import stand_ins
from modelkit import manifest, pipeline
from modelkit.errors import StageError
from modelkit.exporters import optimum
from modelkit.graphs import DATA, MODEL, parts
from modelkit.reference import environment, process
from modelkit.stages import convert
from modelkit.store import Store
from modelkit.vocabulary import Fetching, Signature
from subjects import info
from traced import traced

Answer = Callable[[str, dict[str, Any]], dict[str, Any]]
SHAPE = ("batch_size", "sequence_length", 32)


def answering(*names: str, asked: list[dict[str, Any]] | None = None) -> Answer:
    """The environment's side: a graph for each of `names`."""

    def answer(script: str, request: dict[str, Any]) -> dict[str, Any]:
        assert script == "export"
        json.dumps(request)
        if asked is not None:
            asked.append(request)
        for name in names:
            ends = ["image_embeds", "text_embeds"] if name == "model" else ["logits"]
            traced(Path(request["into"], name), [info(f"in_{end}", shape=SHAPE) for end in ends],
                   [info(end, shape=SHAPE) for end in ends])  # fmt: skip
        return {"parts": list(names)}

    return answer


def exported(into: Path, task: str, **changes: Any) -> Path:
    into.mkdir()
    declared = small_models.manifest_of()
    declared = replace(declared, task=replace(declared.task, kind=task), **changes)
    optimum.export(declared, into.parent / "source", into, optimum.Options())
    return into


def test_the_source_and_the_task_are_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(process, "answer", answering("encoder_model", asked=asked))
    exported(tmp_path / "made", "text2text-generation")
    assert asked[0]["source"] == str(tmp_path / "source")
    assert asked[0]["task"] == "text2text-generation"


def test_parts_come_as_folders_and_nothing_else_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "answer", answering("decoder_model", "encoder_model"))
    made = exported(tmp_path / "made", "text2text-generation")
    assert list(parts(made)) == ["decoder_model", "encoder_model"]
    assert sorted(path.name for path in made.rglob("*") if path.is_file()) == [MODEL, MODEL, DATA, DATA]
    assert sorted(path.name for path in made.iterdir()) == ["decoder_model", "encoder_model"]


def test_text_and_image_in_one_piece_become_two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "answer", answering("model"))
    made = exported(tmp_path / "made", "image-feature-extraction")
    assert list(parts(made)) == ["text_model", "vision_model"]


def test_another_layout_than_the_declared_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "answer", answering("decoder_model", "encoder_model"))
    with pytest.raises(StageError) as caught:
        exported(tmp_path / "made", "text2text-generation", signatures={"model": Signature((), ())})
    assert str(caught.value).startswith(
        "optimum gives the parts decoder_model, encoder_model, the signature declares model; "
    )
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize(
    ("model_type", "task", "told"),
    [
        ("new", "feature-extraction", "`export: direct` builds new for this task"),
        ("new", "text-generation", "use `export: prebuilt` with an ONNX file"),
        ("bit", "feature-extraction", "use `export: prebuilt` with an ONNX file"),
    ],
)
def test_a_model_that_optimum_does_not_know_is_told_with_an_exporter_that_can_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, task: str, told: str
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text(json.dumps({"model_type": model_type}))

    def refuse(script: str, request: dict[str, Any]) -> dict[str, Any]:
        raise StageError(f"optimum exports no model_type {model_type}", hint="the whole log is x.log")

    monkeypatch.setattr(process, "answer", refuse)
    with pytest.raises(StageError) as caught:
        exported(tmp_path / "made", task)
    assert str(caught.value) == f"optimum exports no model_type {model_type}; {told}; the whole log is x.log"


def test_the_lock_of_the_environment_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stand_ins.project(tmp_path)
    path.write_text(path.read_text().replace("export: direct", "export: optimum"))
    loaded = manifest.load(path)
    build = pipeline.Pins(Store(tmp_path / "store")).prepare(loaded, loaded.variants["int8"], None, Fetching(tmp_path))
    material = convert.material(build.job, {})
    assert "requirements.txt" in material["extra"]["reference"]
    assert "inside_export.py" in material["extra"]["reference"]


def test_an_exporter_without_extras_has_the_key_it_always_had(tmp_path: Path) -> None:
    loaded = manifest.load(stand_ins.project(tmp_path))
    build = pipeline.Pins(Store(tmp_path / "store")).prepare(loaded, loaded.variants["int8"], None, Fetching(tmp_path))
    assert "extra" not in convert.material(build.job, {})


def test_direct_never_asks_for_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise AssertionError("the default path asked for the reference environment")

    monkeypatch.setattr(environment, "python", refuse)
    monkeypatch.setattr(environment, "find", refuse)
    loaded = manifest.load(stand_ins.project(tmp_path))
    build = pipeline.Pins(Store(tmp_path / "store")).prepare(loaded, loaded.variants["int8"], None, Fetching(tmp_path))
    assert pipeline.build(build).size > 0
