"""Retrieval: the same neighbours in the same order pass, others fail, and the figures are those of their definitions.
It is never skipped: where there are texts, there are neighbours. What cannot run: too few texts, no order to keep, a
float32 model that gives no numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper

from modelkit import distances
from modelkit.checks import parity, retrieval
from modelkit.errors import CheckError
from modelkit.graphs import MODEL
from modelkit.vocabulary import Verdict
from subjects import compared, copied, good, redrawn, texts

numbers = hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(-5, 5).map(float))
pairs = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=st.integers(-5, 5).map(float))] * 2)
)


def vectors(rows: int = 40, width: int = 16, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(rows, width))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def verdict_of(ours, theirs, **limits) -> Verdict:
    return retrieval.check(compared(ours, theirs), retrieval.Options(**limits))


def nearest(rows, count: int):
    return retrieval.nearest(distances.similarities(np.asarray(rows, float)), count).tolist()


# Verdicts


def test_a_good_artifact_passes(tmp_path_factory):
    verdict = retrieval.check(good(tmp_path_factory.getbasetemp()), retrieval.Options())
    assert verdict.outcome == "passed"
    assert set(verdict.measured) == {"top1", "top10", "spearman"}


def test_an_artifact_whose_vectors_lean_one_way_fails_though_each_is_near_its_own(tmp_path, tmp_path_factory):
    # The fault this check is for: of the parts that tell texts apart little is left, and the rest hides it.
    def leaning(model):
        width, name = 32, "sentence_embedding"
        maker = next(node for node in model.graph.node if name in node.output)
        maker.output[list(maker.output).index(name)] = "upright"
        mixed = np.random.default_rng(0).normal(0, 0.25, (width, width)).astype(np.float32) + np.eye(width, dtype="f4")
        model.graph.initializer.append(numpy_helper.from_array(mixed, "mixed"))
        model.graph.node.append(helper.make_node("MatMul", ["upright", "mixed"], [name]))

    subject = good(tmp_path_factory.getbasetemp())
    spoilt = redrawn(copied(subject, tmp_path / "copy"), leaning)
    assert (spoilt.artifact.folder / MODEL).is_file()
    loose = parity.Options(cosine_mean=0.4, cosine_p1=0.2, cosine_min=0.1)
    assert parity.check(spoilt, loose).outcome == "passed"
    assert retrieval.check(spoilt, retrieval.Options()).outcome == "failed"


def test_identical_vectors_keep_everything():
    verdict = verdict_of(vectors(), vectors())
    assert verdict.outcome == "passed"
    assert verdict.measured == {"top1": 1, "top10": 1, "spearman": pytest.approx(1)}


def test_vectors_rotated_together_pass_for_their_neighbours_are_the_same():
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
    verdict = verdict_of(vectors() @ rotation, vectors())
    assert verdict.outcome == "passed"
    assert verdict.measured["top10"] > 0.99


def test_vectors_that_are_all_alike_fail_though_parity_passes_them():
    # One direction carries everything: each vector still points where the reference's does, nearly.
    theirs = vectors() * 0.05 + np.eye(16)[0]
    ours = np.random.default_rng(2).normal(size=theirs.shape) * 0.02 + np.eye(16)[0]
    assert parity.check(compared(ours, theirs), parity.Options()).outcome == "passed"
    assert verdict_of(ours, theirs).outcome == "failed"


def test_zero_vectors_fail_with_no_order_left():
    verdict = verdict_of(np.zeros((40, 16)), vectors())
    assert verdict.outcome == "failed"
    assert verdict.measured["spearman"] == 0


def test_negated_similarities_have_a_correlation_of_minus_one():
    # Three unit vectors in a plane, and three whose cosines are ranked the other way round.
    theirs, ours = (np.stack([np.cos(angles), np.sin(angles)], 1) for angles in ([0, 0.5, 1.5], [0, 1.5, 0.5]))
    order = [np.argsort(distances.similarities(rows)[np.triu_indices(3, 1)]).tolist() for rows in (ours, theirs)]
    assert order[0] == order[1][::-1]
    assert verdict_of(ours, theirs).measured["spearman"] == pytest.approx(-1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_fails_and_its_text_is_named(value):
    ours = vectors()
    ours[7, 3] = value
    assert verdict_of(ours, vectors()).sentence == "the vector of text t007 is not finite (1 such texts)"


@pytest.mark.parametrize("shape", [(40, 8), (39, 16)])
def test_vectors_of_another_shape_fail(shape):
    verdict = verdict_of(vectors(*shape), vectors())
    assert verdict.sentence == f"the vectors have the shape {list(shape)}, those of the float32 model [40, 16]"


@pytest.mark.parametrize("limit", ["top1", "top10", "spearman"])
def test_each_limit_can_fail_alone(limit):
    ours = vectors() + np.random.default_rng(3).normal(0, 0.05, (40, 16))
    loose = dict.fromkeys(asdict(retrieval.Options()), -1.0)
    verdict = verdict_of(ours, vectors(), **{**loose, limit: 0.999999})
    assert verdict.outcome == "failed"
    assert verdict.sentence.split()[0] == limit
    assert ";" not in verdict.sentence


def test_the_text_that_lost_its_neighbours_leads_the_worst():
    ours = vectors()
    ours[23] = -ours[23]
    worst = verdict_of(ours, vectors()).worst
    assert len(worst) == retrieval.WORST
    assert worst[0] == {"id": "t023", "group": "tiny", "top10": 0.0, "top1": False, "text": "text 23"}


def test_a_long_text_is_cut_in_the_worst():
    corpus = texts("a" * 500, "b", "c")
    verdict = retrieval.check(compared(vectors(3), vectors(3), corpus), retrieval.Options())
    assert max(len(row["text"]) for row in verdict.worst) == 80


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_corpus_without_an_order_is_an_error_and_no_verdict(rows):
    with pytest.raises(CheckError, match=f"a corpus of {rows} texts has no order of neighbours"):
        verdict_of(vectors(rows), vectors(rows))


def test_a_reference_to_which_all_texts_are_equally_near_is_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="all texts are equally near"):
        verdict_of(vectors(), np.ones((40, 16)))


def test_a_reference_that_is_not_finite_is_an_error_and_no_verdict():
    theirs = vectors()
    theirs[0, 0] = np.inf
    with pytest.raises(CheckError, match="the float32 model's own vectors are not finite"):
        verdict_of(vectors(), theirs)


def test_the_verdict_is_strict_json():
    for verdict in (verdict_of(vectors(), vectors()), verdict_of(np.full((40, 16), np.nan), vectors())):
        json.dumps(asdict(verdict), allow_nan=False)


# Neighbours


def test_a_text_is_not_its_own_neighbour():
    # Two pairs: with itself left out, each one's nearest is its partner.
    found = nearest([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]], 3)
    assert [row[0] for row in found] == [1, 0, 3, 2]
    assert all(number not in row for number, row in enumerate(found))


def test_ties_go_to_the_earlier_text():
    # Enough of them for a sort that is not stable to show itself.
    assert nearest(np.eye(3)[np.arange(300) % 3], 10)[299] == list(range(2, 32, 3))


def test_ties_are_broken_alike_in_spite_of_a_difference_in_the_last_bits():
    theirs = np.repeat(vectors(5), 8, axis=0)
    ours = theirs * (1 + np.random.default_rng(4).uniform(-1e-14, 1e-14, theirs.shape))
    assert (retrieval.overlaps(distances.similarities(ours), distances.similarities(theirs)) == 1).all()


def test_the_overlap_is_the_share_of_kept_neighbours():
    # Two groups of eleven: a text's ten neighbours are its group. Then one text of each group goes over to the other:
    # these two keep no neighbour, the twenty others keep nine of ten.
    theirs = np.repeat(np.eye(2), 11, axis=0)
    ours = theirs[[11, *range(1, 11), 0, *range(12, 22)]]
    found = retrieval.overlaps(distances.similarities(ours), distances.similarities(theirs))
    assert found.mean() == pytest.approx(20 * 0.9 / 22)


@pytest.mark.parametrize("rows", range(3, 12))
def test_of_few_texts_the_farthest_is_left_out_or_nothing_could_be_lost(rows):
    ours, theirs = distances.similarities(vectors(rows, seed=5)), distances.similarities(vectors(rows))
    assert (retrieval.overlaps(theirs, theirs) == 1).all()
    assert retrieval.overlaps(-theirs, theirs).mean() < 1
    assert ((retrieval.overlaps(ours, theirs) >= 0) & (retrieval.overlaps(ours, theirs) <= 1)).all()


# Ranks


@given(values=numbers)
def test_a_rank_counts_the_smaller_and_half_of_the_equal(values):
    expected = [(values < one).sum() + ((values == one).sum() + 1) / 2 for one in values]
    assert retrieval.ranks(values).tolist() == expected


@given(values=numbers)
def test_ranks_add_up_to_the_same_whatever_is_tied(values):
    assert retrieval.ranks(values).sum() == len(values) * (len(values) + 1) / 2


@given(pair=pairs)
def test_the_correlation_is_pearsons_of_the_ranks_and_has_no_direction(pair):
    ours, theirs = pair
    found = retrieval.spearman(ours, theirs)
    assert -1 <= found <= 1
    assert found == pytest.approx(retrieval.spearman(theirs, ours))
    if np.ptp(ours) and np.ptp(theirs):
        expected = np.corrcoef(retrieval.ranks(ours), retrieval.ranks(theirs))[0, 1]
        assert found == pytest.approx(expected, abs=1e-12)
    else:
        assert found == 0


@given(pair=pairs)
def test_the_correlation_sees_order_alone(pair):
    ours, theirs = pair
    assert retrieval.spearman(np.exp(ours), theirs**3) == pytest.approx(retrieval.spearman(ours, theirs))


@given(order=st.permutations(range(12)))
def test_without_ties_the_correlation_is_spearmans_own_formula(order):
    places = np.arange(12.0)
    squares = float(((np.array(order) - places) ** 2).sum())
    assert retrieval.spearman(np.array(order, float), places) == pytest.approx(1 - 6 * squares / (12 * (12**2 - 1)))


def test_a_textbook_correlation():
    # Ties on both sides; by hand: ranks 1, 2.5, 2.5, 4 and 1.5, 1.5, 3, 4.
    found = retrieval.spearman(np.array([1.0, 2, 2, 3]), np.array([5.0, 5, 7, 9]))
    assert found == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [1.5, 1.5, 3, 4])[0, 1])


def test_the_measure_of_an_artifact_is_of_its_corpus_outputs(tmp_path_factory):
    subject = good(tmp_path_factory.getbasetemp())
    same = replace(subject, artifact=subject.reference)
    assert retrieval.check(same, retrieval.Options()).measured == {"top1": 1, "top10": 1, "spearman": pytest.approx(1)}
