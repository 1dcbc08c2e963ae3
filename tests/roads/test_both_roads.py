"""Two roads to one model: our own graph and the one that optimum traces from the original give the same numbers.

They need the reference environment: `pytest -m reference` makes it when it is missing (about a minute, 1.1 GB).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

import small_models
import stand_ins
from legal_inputs import feeds, meaningful, signatures_of
from modelkit import conformance, graphs, kinds, manifest, model, pipeline, runtime
from modelkit.cli.golden import _recorded
from modelkit.errors import StageError
from modelkit.exporters import direct, optimum
from modelkit.generation import caches
from modelkit.reference import process, recorded
from modelkit.store import Store
from modelkit.vocabulary import Choice, Fetching, Manifest, Signature

pytestmark = pytest.mark.reference

PASTS = (0, 4)
CLOSE = 5e-5
NEAR = 0.999999
ORIENTATION = 0x0112
"""Exif 2.3, table 4."""


@dataclass(frozen=True)
class Family:
    """A stand-in, the task it is for, and how its direct export comes in optimum's parts."""

    task: str
    made_by: str
    """`module:function` of the stand-in."""
    options: direct.Options = field(default_factory=direct.Options)

    @property
    def stand_in(self) -> Callable[..., Path]:
        """Makes the model in a folder."""
        module, _, name = self.made_by.partition(":")
        made: Callable[..., Path] = getattr(import_module(module), name)
        return made


FAMILIES: Mapping[str, Family] = {
    "bert": Family("feature-extraction", "stand_ins:bert"),
    "xlm-roberta": Family("feature-extraction", "stand_ins.xlm_roberta:xlm_roberta"),
    "deberta-v2": Family("zero-shot-classification", "stand_ins.deberta_v2:deberta_v2"),
    "clip": Family("image-feature-extraction", "stand_ins.clip:clip"),
    "llama": Family("text-generation", "stand_ins.llama:llama"),
    "qwen2": Family("text-generation", "stand_ins.llama:qwen2"),
    "t5": Family("text2text-generation", "stand_ins.t5:t5", direct.Options(split=True)),
}
"""A family is one line here; `direct.Options(split=True)` for one that optimum gives in several parts."""


def declared(family: Family, **signatures: Signature) -> Manifest:
    options = kinds.load("tasks", family.task).Options()
    if hasattr(options, "text"):
        options = replace(options, text=replace(options.text, max_tokens=16))
    return replace(small_models.manifest_of(), task=Choice(family.task, options), signatures=signatures)


def built(
    exporter: ModuleType, family: Family, source: Path, into: Path, options: Any, **signatures: Signature
) -> Path:
    into.mkdir()
    exporter.export(declared(family, **signatures), source, into, options)
    return into


@pytest.fixture(scope="session", params=FAMILIES)
def roads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Source, direct export and optimum's export of one family."""
    family, folder = FAMILIES[request.param], tmp_path_factory.mktemp(request.param)
    source = family.stand_in(folder / "source", seed=5)
    ours = built(direct, family, source, folder / "direct", family.options)
    theirs = built(optimum, family, source, folder / "optimum", optimum.Options(), **signatures_of(ours))
    return source, ours, theirs


def test_both_declare_the_same_parts_names_and_shapes(roads: tuple[Path, Path, Path]) -> None:
    _, ours, theirs = roads
    assert signatures_of(theirs) == signatures_of(ours)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("past", PASTS)
def test_both_give_the_same_numbers(roads: tuple[Path, Path, Path], past: int, seed: int) -> None:
    source, *folders = roads
    config = json.loads((source / "config.json").read_text())
    vocabulary = config.get("vocab_size") or config["text_config"]["vocab_size"]
    for part, signature in signatures_of(folders[0]).items():
        feed = feeds(signature, vocabulary, past, seed)
        sessions = [runtime.Session(graphs.parts(folder)[part], threads=1) for folder in folders]
        results = [dict(zip(session.outputs, session.run(feed), strict=True)) for session in sessions]
        for spec in signature.outputs:
            one, other = (meaningful(spec, result[spec.name], feed) for result in results)
            assert np.isfinite(one).all()
            assert np.abs(one - other).max() <= CLOSE, f"{part}: {spec.name}"
            assert small_models.cosines(one, other).min() >= NEAR, f"{part}: {spec.name}"


LEARNED = Path(__file__).parents[1] / "learned" / "models"


def greedy(folder: Path, prompts: list[list[int]], config: dict[str, Any], length: int = 24) -> list[list[int]]:
    """The likeliest next token of every prompt, `length` times, with what the model remembers."""
    sessions = runtime.Sessions(graphs.parts(folder), 1)
    pad, start = config["pad_token_id"], config.get("decoder_start_token_id")
    steps = caches.Causal(sessions["model"], pad) if start is None else caches.seq2seq(sessions, pad, start)
    scores, written = steps.first(prompts), []
    for _ in range(length):
        written.append(scores.argmax(axis=-1).tolist())
        scores = steps.following(written[-1])
    return written


@pytest.mark.parametrize(("name", "kind"), [("t5-summaries", "t5"), ("llama-summaries", "llama")])
def test_both_write_the_same_tokens_greedily(name: str, kind: str, tmp_path: Path) -> None:
    source, family = LEARNED / name, FAMILIES[kind]
    ours = built(direct, family, source, tmp_path / "direct", family.options)
    theirs = built(optimum, family, source, tmp_path / "optimum", optimum.Options(), **signatures_of(ours))
    codes = [f"def f(a, b):\n    return {body}\n" for body in ("max(a)", "a + b", "[b]", "len(a)")]
    prompts = [one.ids for one in Tokenizer.from_file(str(source / "tokenizer.json")).encode_batch(codes)]
    assert len({len(ids) for ids in prompts}) > 1, "some prompts are padded"
    config = json.loads((source / "config.json").read_text())
    written = greedy(ours, prompts, config)
    assert written == greedy(theirs, prompts, config)
    assert len({tuple(row) for row in zip(*written, strict=True)}) == len(codes), "other code, another answer"


def test_the_comparison_would_notice_other_weights(tmp_path: Path) -> None:
    family = FAMILIES["bert"]
    made = [built(direct, family, family.stand_in(tmp_path / f"source{seed}", seed=seed), tmp_path / f"made{seed}",
                  family.options) for seed in (0, 1)]  # fmt: skip
    feed = feeds(signatures_of(made[0])["model"], 64, 0, 0)
    one, other = (runtime.Session(graphs.parts(folder)["model"], threads=1).run(feed)[1] for folder in made)
    assert small_models.cosines(one, other).min() < NEAR


def test_optimum_twice_is_the_same_bytes(roads: tuple[Path, Path, Path], request: pytest.FixtureRequest) -> None:
    source, ours, theirs = roads
    family = FAMILIES[request.node.callspec.params["roads"]]
    again = theirs.with_name("again")
    built(optimum, family, source, again, optimum.Options(), **signatures_of(ours))
    assert small_models.digests(again) == small_models.digests(theirs)


def project(folder: Path, export: str) -> Manifest:
    path = stand_ins.project(folder)
    path.write_text(path.read_text().replace("export: direct", f"export: {export}"))
    return manifest.load(path)


def build_of(declared: Manifest, store: Path) -> pipeline.Build:
    context = Fetching(declared.path.parent)
    return pipeline.Pins(Store(store)).prepare(declared, declared.variants["int8"], None, context)


@pytest.mark.parametrize("export", ["direct", "optimum"])
def test_a_model_of_either_road_passes_every_check_the_recorded_one_included(tmp_path: Path, export: str) -> None:
    declared = project(tmp_path, export)
    build = build_of(declared, tmp_path / "store")
    path = recorded.path_of(declared)
    path.parent.mkdir()
    path.write_text(_recorded(build))
    examination = conformance.Examination(build, pipeline.build(build))
    outcomes = {verdict.check: (verdict.outcome, verdict.sentence) for verdict in conformance.examine(examination)}
    assert {outcome for outcome, _ in outcomes.values()} == {"passed"}, outcomes
    assert "golden" in outcomes


IMAGES = """\
name: pictures
task: image-feature-extraction
license: MIT
source: {path: weights}
export: direct
signature:
  text_model:
    inputs: {input_ids: "int64[batch, sequence]", attention_mask: "int64[batch, sequence]"}
    outputs: {text_embeds: "float32[batch, 16]"}
  vision_model:
    inputs: {pixel_values: "float32[batch, 3, 32, 32]"}
    outputs: {image_embeds: "float32[batch, 16]"}
text: {max_tokens: 16}
variants:
  int8: {channel: dev, scheme: w8a8-per-token}
"""


def picture_project(folder: Path) -> Manifest:
    """A project without a corpus of its own: the rows are those of the one that modelkit ships."""
    FAMILIES["clip"].stand_in(folder / "weights", seed=5)
    (folder / "conformance").mkdir()
    path = folder / "pictures.yaml"
    path.write_text(IMAGES)
    return manifest.load(path)


def test_a_golden_of_images_and_texts_holds_for_our_own_graphs(tmp_path: Path) -> None:
    build = build_of(picture_project(tmp_path), tmp_path / "store")
    declared = build.job.manifest
    path = recorded.path_of(declared)
    path.parent.mkdir()
    path.write_text(_recorded(build))
    golden = recorded.read(declared)
    assert golden is not None
    images = [row["id"] for row in golden["rows"] if row["text"].startswith("data:image/")]
    assert 5 <= len(images) < len(golden["rows"])
    verdict = conformance.Examination(build, pipeline.build(build)).run("golden")
    assert (verdict.outcome, verdict.measured["rows"]) == ("passed", len(golden["rows"])), verdict


def test_an_image_that_the_camera_held_upright_is_recorded_as_it_is_seen(tmp_path: Path) -> None:
    turned = Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(40, 20, 3))
    exif, file = Image.Exif(), BytesIO()
    exif[ORIENTATION] = 6
    turned.save(file, "PNG", exif=exif)
    text = "data:image/png;base64," + b64encode(file.getvalue()).decode()
    build = build_of(picture_project(tmp_path), tmp_path / "store")
    request = {
        "source": str(build.artifact("downloaded").folder), "task": "image-feature-extraction",
        "options": recorded.plain(build.job.manifest.task.options), "texts": [text],
    }  # fmt: skip
    ours = model.load(build.artifact("converted").folder).outputs([text])
    theirs = np.array(process.answer("outputs", request)["outputs"])
    assert np.abs(ours - theirs).max() <= CLOSE


def test_recording_twice_gives_the_same_file(tmp_path: Path) -> None:
    build = build_of(project(tmp_path, "direct"), tmp_path / "store")
    assert _recorded(build) == _recorded(build)


def refusal(source: Path, into: Path) -> str:
    with pytest.raises(StageError) as caught:
        built(optimum, FAMILIES["bert"], source, into, optimum.Options())
    return str(caught.value)


@pytest.mark.parametrize(
    ("model_type", "told", "hint"),
    [
        ("new", "has no model_type new", "`export: direct` builds new"),
        ("bit", "optimum exports no model_type bit", "`export: prebuilt`"),
        ("bert-2", "has no model_type", "`export: prebuilt`"),
    ],
)
def test_a_model_that_optimum_cannot_take_is_told_in_one_line(
    tmp_path: Path, model_type: str, told: str, hint: str
) -> None:
    source = stand_ins.bert(tmp_path / "source", model_type=model_type)
    said = refusal(source, tmp_path / "made")
    assert told in said
    assert hint in said


def test_a_missing_weight_is_told_and_not_made_up(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = stand_ins.bert(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    assert "no tensor encoder.layer.1.output.dense.weight (1 missing)" in refusal(source, tmp_path / "made")


def test_a_pickled_checkpoint_is_never_opened(tmp_path: Path) -> None:
    source = stand_ins.bert(tmp_path / "source")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    assert "safetensors" in refusal(source, tmp_path / "made")
