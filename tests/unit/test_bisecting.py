"""Bisecting names the node that was spoiled, whatever the scheme, the family and the kind of fault."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelkit import bisecting, manifest, pipeline
from modelkit.errors import CheckError
from modelkit.graphs import pieces
from modelkit.store import Store
from modelkit.vocabulary import Artifact, Fetching, Manifest, Subject
from subjects import artifact, copied, good, redrawn

LEARNED = Path(__file__).parents[1] / "learned"
WEIGHT = "encoder.layer.1.output.dense.weight"

Edit = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def subject(tmp_path_factory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture
def spoiled(subject, tmp_path) -> Callable[[str, Edit], Subject]:
    """`subject` with one stored tensor edited."""

    def spoil(name: str, edit: Edit) -> Subject:
        def change(proto: onnx.ModelProto) -> None:
            tensor = next(one for one in proto.graph.initializer if one.name == name)
            tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor).copy()), name))

        return redrawn(copied(subject, tmp_path / "spoiled"), change)

    return spoil


@pytest.fixture
def place(tmp_path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def silent(what: str, done: int, total: int | None) -> None:
    """Shows nothing."""


def report_of(subject: Subject, place: Path) -> bisecting.Report:
    return bisecting.bisect(subject.manifest, subject.reference, subject.artifact, place, silent)


def halves_swapped(array: np.ndarray) -> np.ndarray:
    return np.roll(array, array.shape[-1] // 2, axis=-1)


def test_a_scale_that_is_half_too_large_is_named(spoiled, place):
    first = report_of(spoiled(f"{WEIGHT}/scales", lambda scales: scales * np.float32(1.5)), place).findings[0]
    assert first.weights == (WEIGHT,)
    assert first.own == pytest.approx(0.5, rel=0.1)
    assert first.share > 0.9


def test_columns_that_changed_places_are_named(spoiled, place):
    assert report_of(spoiled(f"{WEIGHT}/int8", halves_swapped), place).findings[0].weights == (WEIGHT,)


def test_a_norm_that_changed_is_named_by_its_own_value(spoiled, place):
    norm = "encoder.layer.0.output.LayerNorm"
    first = report_of(spoiled(f"{norm}.weight", lambda weight: weight * np.float32(2)), place).findings[0]
    assert first.value == norm
    assert f"{norm}.weight" in first.weights


def test_a_weight_that_is_not_finite_takes_the_whole_share(spoiled, place):
    report = report_of(spoiled(f"{WEIGHT}/scales", lambda scales: scales * np.float32("nan")), place)
    first, second = report.findings[:2]
    assert first.weights == (WEIGHT,)
    assert (first.share, second.share) == (1.0, 0.0)
    assert math.isinf(first.output)


def test_nothing_is_found_where_nothing_differs(subject, place):
    report = report_of(replace(subject, artifact=subject.reference), place)
    assert (report.findings, report.pieces) == ((), 0)
    assert report.total < 1e-6


def test_shares_add_up_and_come_largest_first(subject, place):
    shares = [one.share for one in report_of(subject, place).findings]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)


def test_the_pieces_errors_make_up_the_whole_artifacts_error(subject, place):
    report = report_of(subject, place)
    together = math.sqrt(sum(one.output**2 for one in report.findings))
    assert report.total == pytest.approx(together, rel=0.5)


def test_more_precision_costs_what_the_matrix_would_take(subject, place):
    found = {one.weights: one for one in report_of(subject, place).findings}[(WEIGHT,)]
    elements = 32 * 64
    assert found.to_8bit is None  # it has eight already
    # int8 codes and a float32 scale for each of the 32 columns, and a few constants
    assert 3 * elements - 4 * 32 - 64 <= found.to_float32 <= 3 * elements - 4 * 32


def test_graphs_without_a_name_in_common_are_refused(subject, place, tmp_path):
    def rename(proto: onnx.ModelProto) -> None:
        known = {one.name for one in (*proto.graph.input, *proto.graph.initializer)}
        for node in proto.graph.node:
            node.input[:] = [name if name in known or not name else f"{name}/x" for name in node.input]
            node.output[:] = [f"{name}/x" for name in node.output]
        for output in proto.graph.output:
            output.name += "/x"

    other = redrawn(copied(subject, tmp_path / "renamed"), rename)
    with pytest.raises(CheckError, match="no value whose name the float32 model knows"):
        report_of(other, place)


def learned(name: str, variant: str, store: Path) -> tuple[Manifest, Artifact, Artifact]:
    loaded = manifest.load(LEARNED / f"{name}.yaml")
    build = pipeline.Pins(Store(store)).prepare(loaded, loaded.variants[variant], None, Fetching(loaded.path.parent))
    return loaded, build.artifact("converted"), pipeline.build(build)


@pytest.mark.parametrize(
    ("name", "variant", "weight", "stored"),
    [
        ("t5-summaries", "int8", "decoder.block.0.layer.2.DenseReluDense.wo.weight", "int8"),
        ("t5-summaries", "int4", "encoder.block.1.layer.0.SelfAttention.o.weight", "codes"),
        ("llama-summaries", "int4", "layers.2.mlp.down_proj.weight", "codes"),
        ("deberta-entailment", "int8", "encoder.layer.1.output.dense.weight", "int8"),
    ],
)
def test_each_family_is_bisected_and_both_bodies_of_its_switches_are_seen(
    name, variant, weight, stored, place, tmp_path
):
    loaded, reference, finished = learned(name, variant, tmp_path / "store")
    folder = tmp_path / "spoiled"
    folder.mkdir()
    for path in finished.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    proto = onnx.load(folder / "model.onnx")
    tensor = next(one for one in proto.graph.initializer if one.name == f"{weight}/{stored}")
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(halves_swapped(array), tensor.name))
    onnx.save(proto, folder / "model.onnx")
    report = bisecting.bisect(loaded, reference, artifact(folder), place, silent)
    assert report.findings[0].weights == (weight,)


def test_a_branch_that_asks_a_computed_value_cannot_be_followed(tmp_path):
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    output = info("y", onnx.TensorProto.FLOAT, [1])
    body = onnx.helper.make_graph([make("Identity", ["x"], ["inner"])], "body", [], [info("inner", 1, [1])])
    nodes = [make("Cast", ["x"], ["asked"], to=onnx.TensorProto.BOOL),
             make("If", ["asked"], ["y"], name="switch", then_branch=body, else_branch=body)]  # fmt: skip
    graph = onnx.helper.make_graph(nodes, "switched", [info("x", onnx.TensorProto.FLOAT, [1])], [output])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(CheckError, match="the branch that 'switch' takes depends on a computed value"):
        _ = pieces.Graph(tmp_path / "model.onnx").proto


def test_an_error_that_no_rounding_explains_is_suspect_even_where_it_does_little_to_the_output(spoiled, place):
    query = "encoder.layer.0.attention.self.query.weight"
    [suspect] = report_of(spoiled(f"{query}/scales", lambda scales: scales * np.float32(1.2)), place).suspects
    assert suspect.weights == (query,)


def test_what_is_usual_is_measured_on_every_piece_and_not_on_the_worst_alone(spoiled, place, monkeypatch):
    one = spoiled(f"{WEIGHT}/scales", lambda scales: scales * np.float32(1.5))
    places = [place / name for name in ("every", "worst")]
    for each in places:
        each.mkdir()
    every = report_of(one, places[0])
    monkeypatch.setattr(bisecting, "MOST", 1)
    worst = report_of(one, places[1])
    assert (len(worst.findings), worst.usual) == (1, every.usual)
    assert [one.weights for one in worst.suspects] == [(WEIGHT,)]


def test_nothing_is_suspect_in_a_clean_artifact(subject, place):
    report = report_of(subject, place)
    assert report.findings
    assert report.suspects == ()
