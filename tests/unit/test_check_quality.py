"""Quality: topics that are found as often as by the float32 model pass, fewer fail. It is skipped where no text has a
known topic, and where float32 guesses. What cannot run: texts that teach no topic, a float32 model of no numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from modelkit import conformance, corpora
from modelkit.checks import quality
from modelkit.errors import CheckError
from modelkit.vocabulary import Subject, Verdict
from subjects import copied, embedding, fake, good, redrawn

TOPICS = ("animals", "money", "water")
EACH = 10
VECTOR = "sentence_embedding"
OWN = np.repeat(np.arange(3), EACH)


def labelled(folder: Path, topics: list[str] | None = None, texts: list[str] | None = None) -> Path:
    """A project in `folder` with texts of known topics, and a manifest's place in it."""
    topics = topics or [topic for topic in TOPICS for _ in range(EACH)]
    texts = texts or [f"{topic} {number}" for number, topic in enumerate(topics)]
    path = folder / "conformance" / "corpora" / "labelled" / "feature-extraction.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"t{number:03}", "text": text, "group": topic}
            for number, (topic, text) in enumerate(zip(topics, texts, strict=True))]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "tiny.yaml"


def around(own: np.ndarray = OWN, spread: float = 0.1, seed: int = 0) -> np.ndarray:
    """Vectors about one direction for each topic."""
    return np.eye(8)[own] + np.random.default_rng(seed).normal(0, spread, (len(own), 8))


def subject(folder: Path, ours: Any, theirs: Any, **parts: Any) -> Subject:
    """A subject whose artifact gives the labelled texts the vectors `ours`, in their order."""
    made = fake(task="feature-extraction", **parts)
    given_ = {made.artifact.digest: np.asarray(ours), made.reference.digest: np.asarray(theirs)}
    manifest = replace(made.manifest, path=labelled(folder) if not (folder / "conformance").exists() else folder / "x")
    return replace(made, manifest=manifest,
                   open=lambda which, threads=None: embedding(lambda texts: given_[which.digest])(which))  # fmt: skip


def verdict_of(folder: Path, ours: Any, theirs: Any, **limits: float) -> Verdict:
    return quality.check(subject(folder, ours, theirs), quality.Options(**limits))


# On a built artifact


@pytest.fixture
def built(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The good artifact in a project whose texts speak of a cat, a house, money or a river."""
    others = ("sat", "ran", "on the mat", "was not", "and", "or under", "over a tree", "is")
    pairs = [(word, f"the {word} {other} {word}") for word in ("cat", "house", "money", "river") for other in others]
    made = good(tmp_path_factory.getbasetemp())
    path = labelled(tmp_path / "project", [word for word, _ in pairs], [text for _, text in pairs])
    return replace(made, manifest=replace(made.manifest, path=path))


def test_a_good_artifact_passes(built):
    verdict = quality.check(built, quality.Options())
    assert verdict.outcome == "passed"
    assert verdict.measured["float32_accuracy"] > 0.9
    assert verdict.measured["texts"] == 32


def test_vectors_that_keep_one_direction_only_lose_the_topics_and_fail(built, tmp_path):
    # The fault this check is for: what is left still tells some texts apart, and too few topics.
    def flattened(proto):
        for node in proto.graph.node:
            node.output[:] = ["whole" if one == VECTOR else one for one in node.output]
        kept = np.zeros((32, 32), np.float32)
        kept[0, 0] = kept[1, 1] = 1
        proto.graph.initializer.append(numpy_helper.from_array(kept, "kept"))
        proto.graph.node.append(helper.make_node("MatMul", ["whole", "kept"], [VECTOR]))

    verdict = quality.check(redrawn(copied(built, tmp_path / "copy"), flattened), quality.Options())
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("kept ")
    assert verdict.measured["lost"] >= len(verdict.worst) > 0


def test_it_is_planned_in_the_full_profile_for_vectors_alone(built):
    assert "quality" in conformance.plan(built.manifest, "full")
    assert "quality" not in conformance.plan(built.manifest)


# Verdicts


def test_the_same_vectors_pass_with_nothing_lost(tmp_path):
    verdict = verdict_of(tmp_path, around(), around())
    assert verdict.outcome == "passed"
    assert verdict.measured == {
        "kept": 1, "accuracy": 1, "accuracy_low": pytest.approx(0.8865, abs=1e-4), "accuracy_high": 1,
        "float32_accuracy": 1, "lost": 0, "won": 0, "texts": 30,
    }  # fmt: skip


def test_vectors_that_turn_together_find_the_same_topics(tmp_path):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    assert verdict_of(tmp_path, around() @ turn, around()).measured["kept"] == 1


def test_texts_that_moved_to_another_topic_are_lost_and_listed(tmp_path):
    ours = around()
    ours[[3, 4]] = np.eye(8)[1] + [[0.2], [0.0]]  # the second is farther from where it belongs
    verdict = verdict_of(tmp_path, ours, around())
    assert verdict.outcome == "failed"
    assert (verdict.measured["lost"], verdict.measured["kept"]) == (2, pytest.approx(28 / 30))
    assert verdict.sentence == "kept 0.933333 is below 0.95"
    assert verdict.worst[0] == {"id": "t004", "topic": "animals", "found": "money", "text": "animals 4"}
    assert [row["id"] for row in verdict.worst] == ["t004", "t003"]


def test_what_float32_misses_and_the_artifact_finds_counts_for_it(tmp_path):
    theirs = around()
    theirs[[3, 4]] = np.eye(8)[1]
    verdict = verdict_of(tmp_path, around(), theirs)
    assert (verdict.measured["won"], verdict.measured["lost"]) == (2, 0)
    assert verdict.measured["kept"] == pytest.approx(30 / 28)
    assert verdict.outcome == "passed"


def test_the_interval_told_is_that_of_the_artifact(tmp_path):
    ours = around()
    ours[[3, 4]] = np.eye(8)[1]
    measured = verdict_of(tmp_path, ours, around()).measured
    assert (measured["accuracy_low"], measured["accuracy_high"]) == quality.wilson(28, 30)


def test_a_limit_is_held(tmp_path):
    ours = around()
    ours[3] = np.eye(8)[1]
    assert verdict_of(tmp_path, ours, around(), kept=0.99).outcome == "failed"
    assert verdict_of(tmp_path, ours, around(), kept=0.9).outcome == "passed"


def test_zero_vectors_fail(tmp_path):
    verdict = verdict_of(tmp_path, np.zeros((30, 8)), around())
    assert verdict.outcome == "failed"
    assert verdict.measured["accuracy"] <= 1 / 3


def test_a_vector_that_is_not_finite_fails_and_its_text_is_named(tmp_path):
    ours = around()
    ours[7, 3] = np.nan
    assert verdict_of(tmp_path, ours, around()).sentence == "the vector of text t007 is not finite (1 such texts)"


def test_vectors_of_another_width_fail(tmp_path):
    assert verdict_of(tmp_path, around()[:, :7], around()).outcome == "failed"


def test_a_task_without_labelled_texts_is_skipped_with_the_reason():
    verdict = quality.check(fake(task="image-feature-extraction"), quality.Options())
    assert verdict.outcome == "skipped"
    assert verdict.sentence.startswith("there are no texts of known topics for image-feature-extraction")


def test_a_float32_model_that_guesses_is_skipped_with_the_reason(tmp_path):
    guess = np.random.default_rng(0).normal(size=(30, 8))
    verdict = verdict_of(tmp_path, guess, guess)
    assert verdict.outcome == "skipped"
    assert verdict.sentence.startswith("the float32 model itself finds the topic of ")
    assert verdict.measured["float32_accuracy"] < quality.FLOOR


def test_a_float32_model_that_is_not_finite_is_an_error_and_no_verdict(tmp_path):
    with pytest.raises(CheckError, match="the float32 model's own vectors are not finite"):
        verdict_of(tmp_path, around(), np.full((30, 8), np.inf))


@pytest.mark.parametrize("topics", [["one"] * 30, [*["one"] * 29, "two"]])
def test_texts_that_teach_no_topic_are_an_error_and_no_verdict(tmp_path, topics):
    labelled(tmp_path, topics)
    with pytest.raises(CheckError, match=r"the labelled texts have [12] topics, the smallest of (30|1) texts"):
        verdict_of(tmp_path, around(), around())


def test_a_damaged_line_is_an_error_and_no_verdict(tmp_path):
    path = labelled(tmp_path).parent / "conformance" / "corpora" / "labelled" / "feature-extraction.jsonl"
    path.write_text(path.read_text() + "no row\n")
    with pytest.raises(CheckError, match="is no row of a corpus"):
        verdict_of(tmp_path, around(), around())


def test_the_verdict_is_strict_json(tmp_path):
    ours = around()
    ours[[3, 4]] = np.eye(8)[1]
    for vectors in (around(), ours, np.full((30, 8), np.nan)):
        json.dumps(asdict(verdict_of(tmp_path, vectors, around())), allow_nan=False)


def test_other_texts_are_another_verdict(tmp_path):
    one, other = (replace(fake(task="feature-extraction").manifest, path=labelled(tmp_path / name))
                  for name in ("one", "other"))  # fmt: skip
    assert quality.reads(one) == quality.reads(other)
    labelled(tmp_path / "another", texts=[f"text {number}" for number in range(30)])
    another = replace(one, path=tmp_path / "another" / "tiny.yaml")
    assert quality.reads(one) != quality.reads(another)
    assert quality.reads(fake(task="text-generation").manifest) == {"labelled": None}


def test_the_texts_that_ship_have_ten_topics_of_twenty(tmp_path):
    found = corpora.labelled(replace(fake(task="feature-extraction").manifest, path=tmp_path / "tiny.yaml"))
    assert found is not None
    assert np.unique([row["group"] for row in found[0]], return_counts=True)[1].tolist() == [20] * 10


# Figures


@given(seed=st.integers(0, 500))
def test_a_text_is_held_against_centroids_it_had_no_part_in(seed):
    draw = np.random.default_rng(seed)
    own = np.concatenate([np.arange(3).repeat(2), draw.integers(0, 3, 6)])
    vectors = draw.normal(size=(len(own), 5))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = quality.nearness(vectors, own)
    for row, unit in enumerate(units):
        for topic in range(3):
            rest = units[(own == topic) & (np.arange(len(own)) != row)].mean(0)
            assert found[row, topic] == pytest.approx(unit @ rest / np.linalg.norm(rest))


@given(right=st.integers(0, 400), wrong=st.integers(0, 400))
def test_an_interval_holds_its_share_and_stays_between_0_and_1(right, wrong):
    of = right + wrong or 1
    low, high = quality.wilson(right, of)
    assert 0 <= low <= right / of + 1e-12
    assert right / of - 1e-12 <= high <= 1
    mirrored = quality.wilson(of - right, of)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


@given(right=st.integers(1, 99))
def test_the_interval_ends_where_the_score_test_does(right):
    # Wilson's definition: the shares from which what was seen is exactly z standard errors away.
    for end in quality.wilson(right, 100):
        assert abs(right / 100 - end) == pytest.approx(quality.Z * (end * (1 - end) / 100) ** 0.5)


def test_a_published_interval():
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I: 81 of 263.
    assert quality.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
