"""kernels.py: the table of a release, and how a node finds its kernel."""

from __future__ import annotations

import json

import pytest
from onnx import helper

from modelkit import kernels, runtime
from modelkit.manifest_keys import RUNTIMES

MADE_UP = kernels.Runtime("made-up", "1.0", 22, 10, {"com.microsoft": {"Mine": [[1, kernels.LATEST]]}},
                          frozenset())  # fmt: skip


def runs(op_type: str, opset: int, domain: str = "") -> bool:
    return MADE_UP.runs(helper.make_node(op_type, ["x"], ["y"], domain=domain), {domain or "": opset})


@pytest.mark.parametrize(("opset", "since"), [(12, 5), (13, 13), (20, 19)])
def test_an_operator_has_the_kernel_of_the_version_in_which_it_got_its_meaning(opset, since):
    table = {"": {"Reshape": [[since, kernels.LATEST]]}}
    only = kernels.Runtime("only", "1.0", 22, 10, table, frozenset())
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    fitting = [number for number in (12, 13, 20) if only.runs(node, {"": number})]
    assert fitting == [opset]


@pytest.mark.parametrize(
    ("since", "first", "last", "fits"),
    [(7, 7, 12, True), (9, 7, 12, True), (13, 7, 12, False), (6, 7, 12, False), (14, 13, kernels.LATEST, False),
     (13, 13, kernels.LATEST, True)],
)  # fmt: skip
def test_versions_are_matched_as_onnxruntime_does(since, first, last, fits):
    assert kernels._fits(since, first, last) is fits


def test_an_operator_of_onnxruntimes_own_has_one_version():
    assert runs("Mine", 1, "com.microsoft")
    assert not runs("Yours", 1, "com.microsoft")


def test_the_installed_table_is_what_the_installed_onnxruntime_says():
    table = json.loads(kernels.text())
    assert table["release"] == runtime.version()
    assert (table["opset"], table["ir_version"]) >= (22, 10)
    assert table["kernels"][""]["Relu"][-1][1] == kernels.LATEST


def test_no_operator_has_fewer_kernels_now_than_the_table_knows():
    now = kernels.installed()["kernels"]
    table = kernels.of("onnxruntime-web").kernels
    gone = [(domain, name) for domain, names in table.items() for name in names if name not in now[domain]]
    assert gone == []


def test_every_runtime_that_lacks_types_is_one_that_a_manifest_may_name():
    assert {*kernels.LACKING} <= {*RUNTIMES}
