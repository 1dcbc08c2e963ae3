"""Outputs: what a task does not read counts as well; ratios are those of their formulas. It is never skipped: each
graph declares outputs. What cannot run: a part that no text reaches, a float32 graph that gives no numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import log10
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelkit import graphs, runtime, tracing
from modelkit.checks import outputs, parity
from modelkit.errors import CheckError
from modelkit.graphs import MODEL
from modelkit.tracing import Fed
from modelkit.vocabulary import Subject, Verdict
from subjects import copied, good, redrawn, texts
from writers import LLAMA, T5, learned

HIDDEN, VECTOR = "last_hidden_state", "sentence_embedding"
RESOLVED = 20 * log10(2**24)
powers = st.floats(1e-6, 1e6)


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


def verdict_of(subject: Subject, **limits: Any) -> Verdict:
    return outputs.check(subject, outputs.Options(**limits))


def behind(name: str, add: Callable[[str, str], onnx.NodeProto]) -> Callable[[onnx.ModelProto], None]:
    """Puts a node between what makes the output `name` and the output; whatever else reads the value is left alone."""

    def edit(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            for names in (node.input, node.output):
                names[:] = [f"{name}/before" if one == name else one for one in names]
        proto.graph.node.append(add(f"{name}/before", name))

    return edit


def noise(name: str, scale: float) -> Callable[[onnx.ModelProto], None]:
    """Adds noise of this standard deviation to one output."""
    edit = behind(name, lambda before, after: helper.make_node("Add", [before, f"{name}/noise"], [after]))

    def both(proto: onnx.ModelProto) -> None:
        edit(proto)
        drawn = helper.make_node(
            "RandomNormalLike", [f"{name}/before"], [f"{name}/noise"], scale=scale, seed=1.0, dtype=TensorProto.FLOAT
        )
        proto.graph.node.insert(len(proto.graph.node) - 1, drawn)

    return both


def spoilt(subject: Subject, folder: Path, edit: Callable[[onnx.ModelProto], None]) -> Subject:
    return redrawn(copied(subject, folder / "copy"), edit)


def feeds_of(subject: Subject) -> list[Fed]:
    recorders = tracing.Recorders(runtime.Sessions(graphs.parts(subject.reference.folder)))
    outputs._record(subject, recorders)
    return recorders["model"].fed


def compared(ours: Any, theirs: Any) -> outputs.Compared:
    one = outputs.Compared("model", "logits", continued=False)
    one.add(np.asarray(ours, float), np.asarray(theirs, float))
    return one


# Verdicts


def test_a_good_artifact_passes(subject):
    verdict = verdict_of(subject)
    assert verdict.outcome == "passed"
    assert verdict.measured["outputs"] == 2
    assert {row["output"] for row in verdict.worst} == {HIDDEN, VECTOR}
    for ratio in ("snr", "psnr"):
        assert verdict.measured[ratio] == pytest.approx(min(row[ratio] for row in verdict.worst), abs=1e-3)
    json.dumps(asdict(verdict), allow_nan=False)


def test_noise_in_an_output_that_the_task_does_not_read_fails_though_parity_sees_nothing(subject, tmp_path):
    noisy = spoilt(subject, tmp_path, noise(HIDDEN, 2.0))
    assert parity.check(noisy, parity.Options()) == parity.check(subject, parity.Options())
    verdict = verdict_of(noisy)
    assert verdict.outcome == "failed"
    assert (verdict.worst[0]["output"], verdict.worst[1]["output"]) == (HIDDEN, VECTOR)
    assert verdict.worst[1]["snr"] > 20


def test_a_model_is_no_distance_from_itself(subject):
    verdict = verdict_of(replace(subject, artifact=subject.reference))
    found = {name: verdict.measured[name] for name in ("snr", "psnr", "max_abs")}
    assert found == {"snr": pytest.approx(RESOLVED), "psnr": pytest.approx(RESOLVED), "max_abs": 0}


@pytest.mark.parametrize(("limit", "value"), [("snr", 144), ("psnr", 144), ("max_abs", 1e-9)])
def test_each_limit_can_fail_alone(subject, limit, value):
    verdict = verdict_of(subject, **{"snr": None, "psnr": None, limit: value})
    assert verdict.outcome == "failed"
    assert verdict.sentence.split()[0] == limit
    assert ";" not in verdict.sentence


def test_the_largest_difference_of_any_output_is_told_and_has_no_limit_of_its_own(subject):
    verdict = verdict_of(subject)
    assert verdict.measured["max_abs"] == max(row["max_abs"] for row in verdict.worst) > 0
    assert verdict.limits["max_abs"] is None


def test_an_output_that_is_gone_fails(subject, tmp_path):
    def without(proto):
        del proto.graph.output[[one.name for one in proto.graph.output].index(HIDDEN)]

    verdict = verdict_of(spoilt(subject, tmp_path, without))
    assert (verdict.outcome, verdict.sentence) == ("failed", f"model does not give {HIDDEN}")


def test_an_output_of_another_shape_fails(subject, tmp_path):
    turned = behind(HIDDEN, lambda *names: helper.make_node("Transpose", [names[0]], [names[1]], perm=[0, 2, 1]))

    def edit(proto):
        turned(proto)
        [output] = [one for one in proto.graph.output if one.name == HIDDEN]
        output.type.tensor_type.ClearField("shape")

    verdict = verdict_of(spoilt(subject, tmp_path, edit))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith(f"{HIDDEN} of model has the shape [1, 32, ")


def test_an_output_that_is_not_finite_fails(subject, tmp_path):
    verdict = verdict_of(spoilt(subject, tmp_path, noise(HIDDEN, float("inf"))))
    assert (verdict.outcome, verdict.sentence) == ("failed", f"{HIDDEN} of model is not finite")


def test_an_artifact_without_the_part_fails(subject, tmp_path):
    made = copied(subject, tmp_path / "copy")
    (made.artifact.folder / MODEL).unlink()
    assert verdict_of(made).sentence == "the artifact has no model"


def test_a_part_that_no_text_reaches_is_an_error_and_no_verdict(subject):
    signatures = {**subject.manifest.signatures, "vision_model": subject.manifest.signatures["model"]}
    wider = replace(subject, manifest=replace(subject.manifest, signatures=signatures))
    with pytest.raises(CheckError, match="no text of the corpus reaches vision_model"):
        verdict_of(wider)


def test_a_float32_model_that_is_not_finite_is_an_error_and_no_verdict(subject, tmp_path):
    swapped = replace(subject, artifact=subject.reference)
    broken = spoilt(swapped, tmp_path, noise(HIDDEN, float("inf")))
    with pytest.raises(CheckError, match=f"the float32 model's own {HIDDEN} is not finite"):
        verdict_of(replace(subject, reference=broken.artifact))


def session(*runs: Any) -> Any:
    """Gives these arrays, one for each run."""
    given_ = iter(runs)
    return SimpleNamespace(run=lambda feed, names: [next(given_)])


def between(ours: Sequence[Any], theirs: Sequence[Any]) -> Any:
    feeds = [Fed({}, "present", None)] * len(ours)
    return outputs._compared("model", ["present"], feeds, session(*ours), session(*theirs))


def test_a_few_steps_with_a_cache_do_not_hide_among_whole_texts():
    fresh, going_on = {}, {"past_key_values.0.key": np.ones((1, 1, 3, 4))}
    feeds = [Fed(feed, "logits", None) for feed in (*[fresh] * 8, going_on)]
    texts, step = [np.full((60, 9), 2.0)] * 8, np.ones((1, 9))
    first, later = outputs._compared("model", ["logits"], feeds, session(*texts, -step), session(*texts, step))
    assert (first.continued, later.continued) == (False, True)
    assert first.snr > 140
    assert later.snr < 0


def test_an_output_that_one_branch_leaves_empty_is_measured_by_the_other():
    [one] = between([np.ones((1, 0)), np.ones((1, 2))], [np.ones((1, 0)), np.full((1, 2), 2.0)])
    assert (one.count, one.max_abs, one.peak) == (2, 1, 2)


def test_an_output_that_is_always_empty_is_an_error_and_no_verdict():
    with pytest.raises(CheckError, match="the float32 model's present is empty for every text"):
        between([np.ones((1, 0))], [np.ones((1, 0))])


# What is fed


@pytest.mark.parametrize("name", [LLAMA, T5])
def test_a_model_that_writes_is_measured_with_its_cache_as_well(tmp_path_factory, name):
    subject = learned(tmp_path_factory.getbasetemp(), name)
    assert verdict_of(subject).measured["outputs"] == 9
    fed = feeds_of(subject)
    # Two texts and three tokens after each: the third is not read, for nothing follows it.
    assert sum(bool(one.feed["use_cache_branch"][0]) if name == T5 else one.feed["input_ids"].shape[1] == 1
               for one in fed) == 4  # fmt: skip


def test_texts_are_fed_one_by_one(subject):
    many = texts(*(f"{word} sat" for word in "abcdef"))
    fed = feeds_of(replace(subject, corpus=tuple({**row, "group": row["id"]} for row in many)))
    assert [one.feed["input_ids"].shape[0] for one in fed] == [1] * 6


def test_each_group_gives_its_text_of_middle_length_beside_the_shortest_and_the_longest_of_all():
    corpus = [{"id": f"{group}{n}", "text": "x" * n, "group": group} for group in "ab" for n in (2, 9, 5)]
    assert [row["id"] for row in outputs.chosen(corpus)] == ["a2", "a5", "b5", "b9"]


def test_texts_and_images_of_one_group_are_both_read():
    corpus = [{"id": f"t{n}", "text": "x" * n, "group": "all"} for n in range(1, 4)]
    images = [{"id": f"i{n}", "text": "data:image/png;base64," + "A" * n, "group": "all"} for n in range(9)]
    found = {row["id"][0] for row in outputs.chosen([*corpus, *images])}
    assert found == {"t", "i"}


@given(groups=st.integers(1, 60))
def test_of_many_groups_sixteen_texts_are_enough(groups):
    corpus = [{"id": str(n), "text": "x" * n, "group": str(n)} for n in range(groups)]
    assert len(outputs.chosen(corpus)) == min(groups, outputs.TEXTS)


# Figures


def test_the_ratios_by_hand():
    # A signal of ones with one peak of two, noise of a tenth: 20 lg (2 / 0.1), 10 lg (7 / 0.04).
    one = compared([1.1, 0.9, 1.1, 1.9], [1, 1, 1, 2])
    assert one.psnr == pytest.approx(20 * log10(20))
    assert one.snr == pytest.approx(10 * log10(7 / 0.04))
    assert one.max_abs == pytest.approx(0.1)


def test_runs_are_measured_together():
    apart = compared([1.1, 0.9], [1, 1])
    apart.add(np.array([1.1, 1.9]), np.array([1.0, 2.0]))
    whole = compared([1.1, 0.9, 1.1, 1.9], [1, 1, 1, 2])
    assert (apart.snr, apart.psnr, apart.max_abs) == pytest.approx((whole.snr, whole.psnr, whole.max_abs))


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_a_ratio_has_no_unit(scale, seed):
    ours, theirs = np.random.default_rng(seed).normal(size=(2, 20))
    one, other = compared(ours, theirs), compared(scale * ours, scale * theirs)
    assert (one.snr, one.psnr) == pytest.approx((other.snr, other.psnr))


@given(signal=powers, noise=powers, times=st.floats(1, 1e3))
def test_more_noise_is_fewer_decibels(signal, noise, times):
    lost = outputs.decibels(signal, noise) - outputs.decibels(signal, times * noise)
    assert lost == pytest.approx(10 * log10(times), abs=1e-6)


@given(signal=st.floats(1e-30, 1e30), noise=st.floats(0, 1e30))
def test_no_noise_is_144_decibels_and_nothing_is_more(signal, noise):
    assert outputs.decibels(signal, noise) <= RESOLVED + 1e-6
    assert outputs.decibels(signal, 0.0) == pytest.approx(RESOLVED)


def test_noise_where_float32_gives_zeros_alone_fails_and_zeros_do_not():
    assert compared([0.0, 1e-3], [0.0, 0.0]).snr < -1000
    assert compared([0.0, 0.0], [0.0, 0.0]).snr == pytest.approx(RESOLVED)
