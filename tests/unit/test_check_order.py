"""Order: outputs that hang on a text's place fail, and so do outputs that land in another's place."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit.checks import order
from modelkit.errors import CheckError
from modelkit.images import DATA_URL
from modelkit.vocabulary import Subject, Verdict
from subjects import copied, embedding, fake, good, redrawn, texts

CORPUS = texts(*(" ".join(f"w{n}x{m}" for m in range(1 + n % 12)) for n in range(60)))


def verdict_of(embed, corpus=CORPUS, task="feature-extraction", **limits) -> Verdict:
    return order.check(fake(corpus=corpus, open=embedding(embed), task=task), order.Options(**limits))


def of(lines: list[str]) -> np.ndarray:
    """A vector per text that tells it from every other."""
    return np.array([np.random.default_rng([*line.encode()]).normal(size=8) for line in lines], np.float32)


def before(proto: onnx.ModelProto) -> str:
    """Puts the last output out of the way; returns its name, which is to be made again of `before`."""
    output = proto.graph.output[-1].name
    last = next(node for node in proto.graph.node if output in node.output)
    last.output[[*last.output].index(output)] = "before"
    return output


def placed(proto: onnx.ModelProto) -> None:
    """The number of its row is added to a vector, in one direction."""
    output, graph = before(proto), proto.graph
    constants = {"zero": np.array(0, np.int64), "one": np.array(1, np.int64), "axis": np.array([1], np.int64),
                 "direction": np.linspace(-1, 1, 32).astype(np.float32) / 100}  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    graph.node.extend([
        helper.make_node("Shape", ["before"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Range", ["zero", "rows", "one"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["numbers", "axis"], ["column"]),
        helper.make_node("Mul", ["column", "direction"], ["moved"]),
        helper.make_node("Add", ["before", "moved"], [output]),
    ])  # fmt: skip


def backwards(proto: onnx.ModelProto) -> None:
    """The last text's vector comes first."""
    output, graph = before(proto), proto.graph
    constants = {"from": [-1], "to": [-(2**31)], "along": [0], "by": [-1]}
    graph.initializer.extend(numpy_helper.from_array(np.array(one), name) for name, one in constants.items())
    graph.node.append(helper.make_node("Slice", ["before", "from", "to", "along", "by"], [output]))


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def test_a_good_artifact_passes(subject):
    verdict = order.check(subject, order.Options())
    assert verdict.outcome == "passed"
    assert verdict.measured["one_minus_cosine"] < 1e-6
    assert verdict.measured["batches"] == 7


@pytest.mark.parametrize("fault", [placed, backwards])
def test_an_artifact_whose_outputs_hang_on_a_place_fails(subject, tmp_path, fault):
    verdict = order.check(redrawn(copied(subject, tmp_path / "spoiled"), fault), order.Options())
    assert verdict.outcome == "failed"
    assert verdict.worst[0]["place"] != verdict.worst[0]["other_place"]


def test_outputs_that_know_no_place_pass():
    assert verdict_of(lambda lines, batch_size=32: of(lines)).measured["one_minus_cosine"] == 0


def test_the_first_text_of_a_batch_is_enough_to_fail():
    def embed(lines, batch_size=32):
        rows = of(lines)
        rows[0] *= -1
        return rows

    verdict = verdict_of(embed)
    assert verdict.outcome == "failed"
    assert verdict.measured["one_minus_cosine"] == pytest.approx(2)
    assert 0 in {verdict.worst[0]["place"], verdict.worst[0]["other_place"]}


def test_each_batch_is_run_as_it_is_backwards_and_shuffled():
    runs = []

    def embed(lines, batch_size=32):
        runs.append([*lines])
        return of(lines)

    verdict_of(embed)
    for start in range(0, len(runs), 4):
        straight, turned, *shuffled = runs[start : start + 4]
        assert turned == straight[::-1]
        assert all(sorted(batch) == sorted(straight) for batch in shuffled)
    longest = max(range(0, len(runs), 4), key=lambda start: len(runs[start]))
    assert len({tuple(batch) for batch in runs[longest : longest + 4]}) == 4


def test_a_little_within_the_limit_passes_and_is_told():
    def embed(lines, batch_size=32):
        rows = of(lines)
        rows[0, 0] += 1e-4
        return rows

    verdict = verdict_of(embed)
    assert verdict.outcome == "passed"
    assert verdict.measured["max_abs"] == pytest.approx(1e-4, rel=0.01)


def test_rows_that_land_at_another_text_fail_even_where_the_whole_batch_is_right():
    def embed(lines, batch_size=32):
        return of(sorted(lines))

    assert verdict_of(embed).outcome == "failed"


def test_logits_have_a_limit_of_their_own():
    verdict = verdict_of(lambda lines, batch_size=32: of(lines), task="text-generation")
    assert verdict.limits == {"cosine_min": None, "logits_min": 0.9995}


def test_images_are_put_in_order_too():
    corpus = (*CORPUS, *texts(*(f"{DATA_URL}png;base64,{n}" for n in range(30))))

    def embed(lines, batch_size=32):
        rows = of(lines)
        if lines[0].startswith(DATA_URL):
            rows[0] *= -1
        return rows

    verdict = verdict_of(embed, corpus=corpus, task="image-feature-extraction")
    assert verdict.outcome == "failed"
    assert verdict.worst[0]["text"].startswith(DATA_URL)


def test_texts_of_a_batch_have_the_same_words_so_that_their_lengths_cannot_sort_them():
    batches = [*order.batches_of(CORPUS)]
    assert len(batches) == order.TEXTS + 1
    for batch in batches[:-1]:
        assert len({*batch}) == len(batch) > 1
        assert len({tuple(sorted(text.split())) for text in batch}) == 1


def test_of_a_pair_the_words_of_the_premise_turn():
    assert order.turned("it rains\nit is wet", 8) == ["it rains\nit is wet", "rains it\nit is wet"]


@pytest.mark.parametrize("corpus", [texts("one"), texts(f"{DATA_URL}png;base64,0"), ()])
def test_a_corpus_that_makes_no_batch_is_skipped_with_the_reason(corpus):
    verdict = verdict_of(None, corpus=corpus)
    assert (verdict.outcome, verdict.sentence) == (
        "skipped", "the corpus has no text of several words, and no two images",
    )  # fmt: skip


def test_a_number_that_is_not_finite_fails_and_its_text_is_told():
    def embed(lines, batch_size=32):
        return of(lines) * np.where([line.startswith("w0x") for line in lines], np.nan, 1)[:, None]

    verdict = verdict_of(embed)
    assert verdict.outcome == "failed"
    assert verdict.sentence == "what the text 'w0x0' gets is not finite"
    json.dumps(asdict(verdict), allow_nan=False)


def test_a_batch_that_cannot_be_run_is_an_error(subject):
    def broken(lines, batch_size=32):
        raise CheckError("onnxruntime could not run the model")

    with pytest.raises(CheckError, match="could not run"):
        order.check(replace(subject, open=embedding(broken)), order.Options())
