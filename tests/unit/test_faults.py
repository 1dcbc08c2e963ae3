"""Every fault of the shelf does damage where it has a place, says what it did, and does nothing elsewhere.

That checks notice it is for `modelkit prove` to find out; how it gets into an artifact is in test_proving.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import stand_ins
import subjects
from modelkit import graphs, kinds
from modelkit.graphs.surgery import Surgery
from modelkit.vocabulary import Subject

FAULTS = kinds.names("faults")
EVERYWHERE = {
    *("batch-fixed", "ir-version-unknown", "model-cut-off", "noise-added", "opset-too-new", "opset-too-old"),
    *("output-renamed", "shape-declared-wrong", "sums-stale", "weights-pickled"),
}
"""Faults that need no more than a graph and its sums."""
each = pytest.mark.parametrize("fault", FAULTS)


@cache
def prefixed(base: Path) -> Subject:
    """A stand-in whose queries and passages have prefixes."""
    path = stand_ins.project(base / "prefixed")
    path.write_text(path.read_text().replace("mean,", 'mean, prefixes: {query: "the ", passage: "a "},'))
    return subjects.built(path, "int8", base / "prefixed" / "store", ())


HOMES: Mapping[str, Callable[[Path], Subject]] = {
    "bert": subjects.good,
    "prefixed": prefixed,
    "clip": subjects.pictures,
    **{
        name: lambda base, name=name: subjects.learned(base, name, "int8")  # type: ignore[misc]
        for name in ("deberta-entailment", "llama-files", "t5-summaries")
    },
}
"""Artifacts of every task, the smallest first."""


@dataclass(frozen=True)
class Damage:
    """What a fault did to copies of an artifact's parts."""

    told: str | None
    before: dict[str, bytes]
    after: dict[str, bytes]

    @property
    def changed(self) -> set[str]:
        """The names of what is there no more, is new, or has other bytes."""
        names = {*self.before, *self.after}
        return {name for name in names if self.before.get(name) != self.after.get(name)}


def damage(fault: str, of: Mapping[str, Any], place: Path, seed: int = 0) -> Damage:
    """Let `fault` have its way with a copy, below `place`, of what it is put into."""
    module = kinds.load("faults", fault)
    if module.WHERE == "recipe":
        recipe = json.loads(json.dumps(of["recipe"]))
        before = {"recipe": json.dumps(recipe).encode()}
        told = module.spoil(recipe, Random(seed))
        return Damage(told, before, {"recipe": json.dumps(recipe).encode()})
    folder = place / "copies" / "folder"  # a fault may write beside it
    shutil.copytree(of["source" if module.WHERE == "source" else "folder"], folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the store's files are read-only
    if module.WHERE == "graph":
        for path in graphs.parts(folder).values():
            Surgery(path).save()  # what it writes by itself is no damage
    before = _bytes(folder.parent)
    told = _in_graphs(folder, module, seed) if module.WHERE == "graph" else module.spoil(folder, Random(seed))
    found = Damage(told, before, _bytes(folder.parent))
    shutil.rmtree(folder.parent)
    return found


def _in_graphs(folder: Path, module: Any, seed: int) -> str | None:
    """The first part that has a place for it; a part that has none is as it was, and saved to show it."""
    for path in graphs.parts(folder).values():
        graph = Surgery(path)
        told: str | None = module.spoil(graph, Random(seed))
        graph.save()
        if told:
            return told
    return None


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parts(subject: Subject) -> dict[str, Any]:
    """What faults are put into."""
    options = asdict(subject.manifest.task.options)
    return {"folder": subject.artifact.folder, "source": subject.source.folder, "recipe": options}


@pytest.fixture
def homes(tmp_path_factory) -> dict[str, dict[str, Any]]:
    base = tmp_path_factory.getbasetemp()
    return {name: parts(make(base)) for name, make in HOMES.items()}


@pytest.fixture
def home(fault: str, homes, tmp_path) -> dict[str, Any]:
    """The smallest artifact that has a place for `fault`."""
    return next(of for of in homes.values() if damage(fault, of, tmp_path).told)


@each
def test_a_fault_has_a_place_in_some_artifact_says_so_in_a_line_and_changes_bytes(fault, homes, tmp_path) -> None:
    """And in an artifact where it has no place it changes nothing."""
    found = [damage(fault, of, tmp_path) for of in homes.values()]
    assert any(one.told for one in found)
    for one in found:
        assert bool(one.told) == bool(one.changed), one.changed
        assert one.told is None or (one.told == one.told.strip() and len(one.told.splitlines()) == 1)


@each
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_whatever_is_drawn_there_is_damage_and_the_same_seed_does_the_same(fault, home, tmp_path, seed: int) -> None:
    first, second = (damage(fault, home, tmp_path, seed) for _ in range(2))
    assert first.told
    assert first.changed
    assert (first.told, first.after) == (second.told, second.after)


@each
def test_a_fault_without_a_place_says_nothing_and_leaves_everything_as_it_was(fault, tmp_path) -> None:
    bare = tmp_path / "bare"
    subjects.drawn(bare, [helper.make_node("Identity", ["x"], ["y"])], [subjects.info("x")], [subjects.info("y")])
    for name in ("config.json", "tokenizer.json", "modelkit.json"):
        (bare / name).write_text('{"options" : {}}')
    (bare / "SHA256SUMS").write_text(f"{'0' * 64}  model.onnx\n")
    found = damage(fault, {"folder": bare, "source": bare, "recipe": {}}, tmp_path)
    assert (found.told is not None, bool(found.changed)) == (fault in EVERYWHERE, fault in EVERYWHERE)


def test_a_token_of_any_kind_of_vocabulary_can_get_another_s_id(homes, tmp_path) -> None:
    """WordPiece, byte-level, and pairs of token and score, where `\u2581` is part of most words."""
    for name in ("bert", "deberta-entailment", "llama-files"):
        found = damage("token-ids-swapped", homes[name], tmp_path)
        assert found.changed == {"tokenizer.json"}, name


def test_tensors_that_are_exchanged_take_each_other_s_place(homes, tmp_path) -> None:
    found = damage("layers-swapped", homes["bert"], tmp_path)
    one, other = str(found.told).removesuffix(" are exchanged").split(" and ")
    was, now = (_stored(content["model.onnx"], tmp_path) for content in (found.before, found.after))
    assert (was[one], was[other]) == (now[other], now[one])
    assert {name for name in was if was[name] != now[name]} == {one, other}


def _stored(model: bytes, place: Path) -> dict[str, bytes]:
    path = place / "looked-at.onnx"
    path.write_bytes(model)
    graph = Surgery(path)
    return {tensor.name: graph.array(tensor).tobytes() for tensor in graph.tensors()}
