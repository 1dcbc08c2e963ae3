"""Padding: a mask that is not looked at fails, on the right and on the left, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import small_generators
from modelkit import kinds, model
from modelkit.checks import padding
from modelkit.errors import CheckError, InputError
from modelkit.images import DATA_URL
from modelkit.vocabulary import Choice, Subject, Verdict
from subjects import artifact, copied, embedding, fake, good, redrawn, texts

CORPUS = texts(*(f"{'a cat ' * (1 + n % 7)}sat{n}" for n in range(40)))


def verdict_of(embed, corpus=CORPUS, task="feature-extraction", **limits) -> Verdict:
    return padding.check(fake(corpus=corpus, open=embedding(embed), task=task), padding.Options(**limits))


def of(lines: list[str], leak: float = 0.0) -> np.ndarray:
    """A vector per text, by its words, turned by `leak` for each letter that the longest text has more."""
    longest = max(map(len, lines))
    angles = [len(line.split()) / 10 + leak * (longest - len(line)) for line in lines]
    return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], np.float32)


def unmasked(proto: onnx.ModelProto) -> None:
    """Every token counts, pads too."""
    graph = proto.graph
    for node in graph.node:
        node.input[:] = ["ones" if name == "attention_mask" else name for name in node.input]
    graph.node.insert(0, helper.make_node("Equal", ["attention_mask", "attention_mask"], ["same"]))
    graph.node.insert(1, helper.make_node("Cast", ["same"], ["ones"], to=TensorProto.INT64))


def miscounted(proto: onnx.ModelProto) -> None:
    """Positions that begin at the first pad, as they do where nobody feeds them."""
    graph = proto.graph
    for node in graph.node:
        node.input[:] = ["counted" if name == "position_ids" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "axis"))
    for place, node in enumerate([
        helper.make_node("Equal", ["position_ids", "position_ids"], ["same"]),
        helper.make_node("Cast", ["same"], ["ones"], to=TensorProto.INT64),
        helper.make_node("CumSum", ["ones", "axis"], ["counted"], exclusive=1),
    ]):  # fmt: skip
        graph.node.insert(place, node)


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture
def generator(tmp_path) -> Subject:
    """A model that pads on the left, in a folder that the test may spoil."""
    folder = small_generators.causal(tmp_path / "generator")
    task = Choice("text-generation", kinds.load("tasks", "text-generation").Options())
    (folder / model.CARD).write_text(model.card("tiny", task))
    corpus = texts(*(f"text {n}" for n in range(30)))
    return fake(artifact=artifact(folder), corpus=corpus, task="text-generation", open=lambda it: model.load(it.folder))


def test_a_good_artifact_passes(subject):
    verdict = padding.check(subject, padding.Options())
    assert verdict.outcome == "passed"
    assert verdict.measured["one_minus_cosine"] < 1e-6
    assert verdict.measured["cases"] == 36


def test_an_artifact_that_does_not_look_at_its_mask_fails(subject, tmp_path):
    leaking = redrawn(copied(subject, tmp_path / "leaking"), unmasked)
    verdict = padding.check(leaking, padding.Options())
    assert verdict.outcome == "failed"
    assert "cosine_min" in verdict.sentence


def test_a_good_generator_passes_though_it_is_padded_on_the_left(generator):
    verdict = padding.check(generator, padding.Options())
    assert (verdict.outcome, verdict.limits["cosine_min"]) == ("passed", None)
    assert verdict.measured["logits_min"] > 1 - 1e-9


def test_a_generator_that_counts_its_pads_fails(generator):
    assert padding.check(redrawn(generator, miscounted), padding.Options()).outcome == "failed"


def test_a_generator_that_looks_at_its_pads_fails(generator):
    path = generator.artifact.folder / "model.onnx"
    proto = onnx.load(path)
    unmasked(proto)
    path.write_bytes(proto.SerializeToString())
    assert padding.check(generator, padding.Options()).outcome == "failed"


def test_pads_that_leak_fail_and_the_worst_cases_are_told_worst_first():
    verdict = verdict_of(lambda lines, batch_size=32: of(lines, 1e-3))
    assert verdict.outcome == "failed"
    distances = [case["one_minus_cosine"] for case in verdict.worst]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] == verdict.measured["one_minus_cosine"] > 0
    assert verdict.worst[0]["times"] == padding.LONGER[-1]


def test_pads_that_leak_within_the_limit_pass():
    assert verdict_of(lambda lines, batch_size=32: of(lines, 1e-7)).outcome == "passed"


def test_what_a_neighbour_does_without_pads_is_not_this_checks_matter():
    def embed(lines, batch_size=32):
        return of(lines) * (1 if len(lines) == 1 else -1)

    assert verdict_of(embed).measured["one_minus_cosine"] == 0


def test_the_longer_neighbour_is_made_of_the_text_itself():
    seen = []

    def embed(lines, batch_size=32):
        seen.append(lines)
        return of(lines)

    verdict_of(embed)
    assert all(len(batch) == 2 for batch in seen)
    assert {*"".join(longer.replace(short, "") for short, longer in seen)} <= {" "}
    assert {len(longer.split()) // len(short.split()) for short, longer in seen} == {1, *padding.LONGER}


def test_of_a_pair_the_premise_grows_and_the_hypothesis_stays():
    assert padding.repeated("It rains.\nIt is wet.", 2) == "It rains. It rains.\nIt is wet."


def test_a_length_that_the_model_refuses_is_left_out():
    def embed(lines, batch_size=32):
        if max(map(len, lines)) > 60:
            raise InputError("the prompt has too many tokens")
        return of(lines)

    assert 0 < verdict_of(embed).measured["cases"] < 36


def test_a_model_that_takes_nothing_longer_is_skipped_with_the_reason():
    def embed(lines, batch_size=32):
        if len({*lines}) > 1:
            raise InputError("the prompt has too many tokens")
        return of(lines)

    verdict = verdict_of(embed)
    assert verdict.outcome == "skipped"
    assert verdict.sentence == "the model takes no text that is twice as long as those of the corpus"


def test_a_corpus_of_images_is_skipped_with_the_reason():
    images = texts(*(f"{DATA_URL}png;base64,{n}" for n in range(30)))
    verdict = verdict_of(None, corpus=images, task="image-feature-extraction")
    assert (verdict.outcome, verdict.sentence) == ("skipped", "the corpus has no text that could be padded")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_fails_and_its_text_is_named(value):
    def embed(lines, batch_size=32):
        return of(lines) * (value if lines[0] == CORPUS[0]["text"] != lines[1] else 1)

    verdict = verdict_of(embed)
    assert verdict.outcome == "failed"
    assert verdict.sentence == "what text t000 gets beside a longer one is not finite"
    json.dumps(asdict(verdict), allow_nan=False)


def test_a_text_that_cannot_be_run_is_an_error(subject):
    def broken(lines, batch_size=32):
        raise CheckError("onnxruntime could not run the model")

    with pytest.raises(CheckError, match="could not run"):
        padding.check(replace(subject, open=lambda it: SimpleNamespace(outputs=broken)), padding.Options())


@pytest.mark.parametrize("size", [1, 12, 13, 40, 101])
def test_the_texts_are_different_ones_of_the_shorter_half_or_all_of_a_few(size):
    rows = texts(*("x" * n for n in range(4, 4 + size)))
    found = [row["text"] for row in padding.short(rows)]
    assert len({*found}) == len(found) == min(padding.TEXTS, size)
    assert max(map(len, found)) <= 4 + max(padding.TEXTS, size // 2)
