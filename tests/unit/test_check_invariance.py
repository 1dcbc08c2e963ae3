"""Invariance: outputs that depend on the batch fail, by whichever neighbour, and the texts that show it are told.

It is never skipped: every model can be given two texts at once, and one that cannot fails."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit import corpora, distances, searching
from modelkit.checks import invariance
from modelkit.errors import CheckError, InputError
from modelkit.graphs import MODEL
from modelkit.images import DATA_URL
from modelkit.schemes import int8_dynamic
from modelkit.vocabulary import Subject, Verdict
from subjects import artifact, copied, embedding, fake, good, redrawn, texts

CORPUS = texts(*("word " * (1 + n % 40) + f"end{n}" for n in range(100)))
UNKNOWN = 1
"""The id of `[UNK]` in the stand-in's tokenizer: its corpus has none, and every rare character is one."""


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def vectors(lines: list[str]) -> np.ndarray:
    """One vector per text, by its length alone."""
    angles = np.array([[len(line) / 100] for line in lines])
    return np.hstack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def verdict_of(embed, corpus=CORPUS, task="feature-extraction", examples=8, **limits) -> Verdict:
    found = fake(corpus=corpus, open=embedding(embed), task=task, examples=examples)
    return invariance.check(found, invariance.Options(**limits))


def turned(rows: np.ndarray, angle: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (rows @ turn).astype(np.float32)


def shifted(by: float):
    """Turns every vector by `by` radians when the text is not alone."""
    return lambda lines, batch_size=32: turned(vectors(lines), by if len(lines) > 1 else 0)


def flagged(proto: onnx.ModelProto) -> None:
    """Moves every vector of a batch in which any token is unknown, by way of a maximum over the whole batch."""
    graph, width = proto.graph, 32
    output = graph.output[-1].name
    last = next(node for node in graph.node if output in node.output)
    last.output[[*last.output].index(output)] = "before"
    direction = np.linspace(-1, 1, width).astype(np.float32) / 20
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(UNKNOWN, np.int64), "unknown"),
            numpy_helper.from_array(direction, "direction"),
            numpy_helper.from_array(np.array([1], np.int64), "tokens"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Equal", [graph.input[0].name, "unknown"], ["found"]),
            helper.make_node("Cast", ["found"], ["flags"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["flags", "tokens"], ["own"], keepdims=1),
            helper.make_node("ReduceMax", ["flags"], ["any"], keepdims=0),
            # A text that has one itself gets the same alone and in a batch.
            helper.make_node("Sub", ["any", "own"], ["others"]),
            helper.make_node("Mul", ["others", "direction"], ["moved"]),
            helper.make_node("Add", ["before", "moved"], [output]),
        ]
    )


# A real artifact


def test_a_good_artifact_passes_and_its_worst_distance_is_told(subject):
    verdict = invariance.check(subject, invariance.Options())
    assert verdict.outcome == "passed"
    assert 0 <= verdict.measured["one_minus_cosine"] < 1e-5
    assert verdict.measured["batch_cosine_min"] == 1 - verdict.measured["one_minus_cosine"]
    assert verdict.worst[0]["one_minus_cosine"] == verdict.measured["one_minus_cosine"]
    assert verdict.worst[0]["beside"]


def test_one_scale_for_a_whole_batch_fails(subject, tmp_path):
    dynamic = copied(subject, tmp_path / "dynamic")
    (dynamic.artifact.folder / MODEL).unlink()
    int8_dynamic.quantize(subject.reference.folder, dynamic.artifact.folder, int8_dynamic.Options())
    verdict = invariance.check(replace(dynamic, artifact=artifact(dynamic.artifact.folder)), invariance.Options())
    assert verdict.outcome == "failed"
    assert "batch_cosine_min" in verdict.sentence


def test_a_neighbour_that_no_corpus_has_is_found_and_told(subject, tmp_path):
    leaking = redrawn(copied(subject, tmp_path / "leaking"), flagged)
    unsearched = invariance.Neighbours(leaking.open(leaking.artifact), distances.of_vectors)
    assert unsearched.beside([row["text"] for row in corpora.spread(subject.corpus, invariance.BATCH)]) < 1e-6
    verdict = invariance.check(leaking, invariance.Options())
    assert verdict.outcome == "failed"
    [neighbour] = verdict.worst[0]["beside"]
    assert verdict.worst[0]["batch"] == 2
    assert f"beside {neighbour!r}" in verdict.sentence


def test_a_model_of_one_text_at_a_time_fails(subject, tmp_path):
    model = subject.open(subject.artifact)

    def embed(lines, batch_size=32):
        if len(lines) > 1:
            raise CheckError("got 32, expected 1")
        return model.outputs(lines)

    verdict = invariance.check(replace(subject, open=embedding(embed)), invariance.Options())
    assert verdict.outcome == "failed"
    assert verdict.sentence == "a batch of 32 texts does not run, though each of them does: got 32, expected 1"


# What is measured


def test_a_vector_that_does_not_depend_on_the_batch_passes():
    verdict = verdict_of(lambda lines, batch_size=32: vectors(lines))
    assert (verdict.outcome, verdict.measured["one_minus_cosine"]) == ("passed", 0)


def test_a_vector_that_depends_on_the_batch_fails():
    verdict = verdict_of(shifted(0.02))
    assert verdict.outcome == "failed"
    assert verdict.measured["batch_cosine_min"] == pytest.approx(np.cos(0.02), abs=1e-6)


def test_a_difference_within_the_limit_passes():
    assert verdict_of(shifted(0.01)).outcome == "passed"


def test_one_text_that_depends_on_the_batch_is_enough_and_leads_the_worst():
    odd = CORPUS[0]["text"]

    def embed(lines, batch_size=32):
        return np.stack([row * (-1 if line == odd and len(lines) > 1 else 1)
                         for line, row in zip(lines, vectors(lines), strict=True)])  # fmt: skip

    verdict = verdict_of(embed)
    assert verdict.outcome == "failed"
    assert verdict.measured["batch_cosine_min"] == pytest.approx(-1)
    assert verdict.worst[0]["id"] == CORPUS[0]["id"]
    assert [row["one_minus_cosine"] for row in verdict.worst[1:]] == [0] * 4


def test_of_several_batches_of_a_text_the_worst_is_kept():
    def embed(lines, batch_size=32):
        return turned(vectors(lines), {1: 0, 2: 0.1, 3: 0.3, 4: 0.2}[len(lines)])

    seen = invariance.Neighbours(embedding(embed)(None), distances.of_vectors)
    found = [seen.beside(batch) for batch in (["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"])]
    assert found == pytest.approx([1 - np.cos(angle) for angle in (0.1, 0.3, 0.2)], rel=1e-4)
    assert seen.cases["a"].beside == ("b", "c")
    assert seen.cases["a"].distance == found[1] == seen.worst(1)[0].distance


def test_the_one_neighbour_that_matters_is_all_that_is_left_of_a_batch():
    odd = CORPUS[0]["text"]
    verdict = verdict_of(
        lambda lines, batch_size=32: turned(vectors(lines), 0.5 if odd in lines and len(lines) > 1 else 0)
    )
    assert verdict.worst[0]["batch"] == 2
    assert odd in {verdict.worst[0]["text"], *verdict.worst[0]["beside"]}


def test_logits_are_compared_less_their_own_mean():
    # Beside an offset of a thousand the whole difference is one part in a million of a plain cosine.
    def embed(lines, batch_size=32):
        return np.hstack([vectors(lines), vectors(lines)[:, :1] * 2]) + (1000 if len(lines) > 1 else 5)

    assert verdict_of(embed, task="text-generation").outcome == "passed"
    leaning = verdict_of(lambda lines, batch_size=32: np.pad(shifted(0.3)(lines), ((0, 0), (0, 1))) + 1000,
                         task="text-generation")  # fmt: skip
    assert leaning.outcome == "failed"
    assert leaning.sentence.startswith("batch_logits_min")


def test_vectors_and_logits_have_limits_of_their_own():
    verdicts = [verdict_of(shifted(0.02), task=task, batch_cosine_min=0.5, batch_logits_min=2.0)
                for task in ("feature-extraction", "text-generation")]  # fmt: skip
    assert [verdict.outcome for verdict in verdicts] == ["passed", "failed"]
    assert [verdict.limits["batch_logits_min"] for verdict in verdicts] == [None, 2.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("alone", [True, False])
def test_a_number_that_is_not_finite_fails_and_its_text_is_told(value, alone):
    odd = CORPUS[0]["text"]

    def embed(lines, batch_size=32):
        made = vectors(lines)
        made[[line == odd and (len(lines) == 1) == alone for line in lines], 1] = value
        return made

    verdict = verdict_of(embed)
    assert verdict.outcome == "failed"
    assert verdict.sentence == f"what the text {odd!r} gets is not finite (1 such texts)"
    json.dumps(asdict(verdict), allow_nan=False)


def test_zero_vectors_fail():
    verdict = verdict_of(lambda lines, batch_size=32: np.zeros((len(lines), 4), np.float32))
    assert (verdict.outcome, verdict.measured["batch_cosine_min"]) == ("failed", 0.0)


def test_a_text_of_the_corpus_that_gets_no_answer_alone_is_an_error():
    def embed(lines, batch_size=32):
        raise InputError("there are 9 tokens and room for 8")

    with pytest.raises(InputError, match="room for 8"):
        verdict_of(embed)


def test_a_corpus_of_one_text_is_an_error():
    with pytest.raises(CheckError, match="no two texts of the corpus can share a batch"):
        verdict_of(lambda lines, batch_size=32: vectors(lines), corpus=CORPUS[:1])


def test_a_made_up_text_that_is_refused_is_no_neighbour():
    known = {row["text"] for row in CORPUS}

    def embed(lines, batch_size=32):
        if len(lines) == 1 and lines[0] not in known:
            raise InputError("never heard of it")
        assert set(lines) <= known
        return vectors(lines)

    assert verdict_of(embed).outcome == "passed"


# What is tried


def test_texts_and_images_never_share_a_batch():
    corpus = (*CORPUS[:30], *texts(*(f"{DATA_URL}png;base64,{n}" for n in range(30))))
    kinds = []

    def embed(lines, batch_size=32):
        kinds.append({line.startswith(DATA_URL) for line in lines})
        return vectors(lines)

    verdict_of(embed, corpus=corpus, task="image-feature-extraction")
    assert all(len(kind) == 1 for kind in kinds)
    assert {True} in kinds
    assert {False} in kinds


def test_what_is_made_of_pairs_are_pairs():
    seen = []

    def embed(lines, batch_size=32):
        seen.extend(lines)
        return vectors(lines)

    verdict_of(embed, corpus=texts(*(f"premise number {n}\nhypothesis {n}" for n in range(40))), examples=40)
    assert {line.rpartition("\n")[2].split(" ")[0] for line in seen} == {"hypothesis"}
    assert len({line.rpartition("\n")[0] for line in seen}) > 50


def test_the_search_is_the_same_in_every_run():
    runs = [[], []]
    for run in runs:
        verdict_of(lambda lines, batch_size=32, run=run: run.append([*lines]) or shifted(0.001)(lines), examples=24)
    assert runs[0] == runs[1]


def test_later_rounds_draw_from_the_worst_texts_of_earlier_ones():
    # Each word "deep" in a text adds to its distance; no text of the corpus has more than one.
    corpus = texts(*("deep sea" if n % 10 == 0 else f"plain word{n}" for n in range(60)))

    def embed(lines, batch_size=32):
        angles = [0.001 * line.count("deep") if len(lines) > 1 else 0 for line in lines]
        return np.vstack([turned(row[None], by) for row, by in zip(vectors(lines), angles, strict=True)])

    found = [verdict_of(embed, corpus=corpus, examples=n).measured["one_minus_cosine"] for n in (4, 120)]
    assert found[1] > 10 * found[0]


def test_a_batch_is_drawn_again_with_the_neighbours_that_made_it_the_worst():
    case, drawn = invariance.Case("the victim", ("the bully", "a bystander"), 0.5, 1.0), []
    strategy = invariance.batches([row["text"] for row in CORPUS], [case])
    searching.worst(strategy, lambda batch: float(drawn.append(batch) or 0), 30)
    again = [batch for batch in drawn if "the bully" in batch]
    assert again
    assert all({"the victim", "a bystander"} < {*batch} for batch in again)


def test_more_examples_try_more_batches():
    few, many = (verdict_of(shifted(0), examples=n).measured["batches"] for n in (4, 40))
    assert 1 < few < many <= 41


def test_the_spread_runs_from_the_shortest_text_to_the_longest():
    lengths = [len(row["text"]) for row in corpora.spread(CORPUS, invariance.BATCH)]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (9, 205)


def test_the_spread_has_thirty_two_different_texts():
    assert len({row["id"] for row in corpora.spread(CORPUS, invariance.BATCH)}) == 32


@pytest.mark.parametrize("seed", range(3))
def test_the_spread_does_not_depend_on_the_order_of_the_corpus(seed):
    shuffled = random.Random(seed).sample(CORPUS, len(CORPUS))
    assert corpora.spread(shuffled, invariance.BATCH) == corpora.spread(CORPUS, invariance.BATCH)


@pytest.mark.parametrize("size", [1, 5, 31, 32, 33, 34])
def test_a_small_corpus_is_used_whole(size):
    assert len({row["id"] for row in corpora.spread(CORPUS[:size], invariance.BATCH)}) == min(size, 32)
