"""Proving puts faults where they belong, asks the checks, and tells what nobody noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import stand_ins
from modelkit import conformance, manifest, pipeline, proving, spoiling
from modelkit.conformance import Examination
from modelkit.digests import digest_folder
from modelkit.errors import CheckError, ManifestError
from modelkit.proving import Proof, Tried
from modelkit.store import Store
from modelkit.vocabulary import Fetching

UNNOTICED = "pooling-exchanged"
"""The float32 model pools as wrongly, and there is no recording of the original to tell."""
SEEN = """\
import json
from dataclasses import dataclass
from modelkit.digests import digest_folder, digest_of
from modelkit.vocabulary import Verdict
VERSION = 1
@dataclass(frozen=True)
class Options: pass
def check(subject, limits):
    made = {{name: getattr(subject, name) for name in ("artifact", "reference", "source")}}
    assert all(dict(one.files) == digest_folder(one.folder) for one in made.values())
    with open({path!r}, "a") as file:
        file.write(json.dumps({{name: one.digest for name, one in made.items()}}) + "\\n")
    return Verdict("seen", "passed", "it was seen")
"""
"""A check of a project that writes down what it got to look at."""
OWN = """\
from dataclasses import dataclass
from modelkit.errors import CheckError
from modelkit.vocabulary import Verdict
VERSION = 1
@dataclass(frozen=True)
class Options: pass
def check(subject, limits):
"""


@cache
def whole(base: Path) -> Path:
    """A project with a store that holds what was built of it."""
    folder = base / "proven"
    path = stand_ins.project(folder)
    config = folder / "weights" / "config.json"
    # No encoder looks at its labels; a fault in them is none.
    config.write_text(json.dumps({**json.loads(config.read_text()), "id2label": {"0": "a", "1": "b"}}))
    examined(path)
    return folder


def examined(path: Path, variant: str = "int8") -> Examination:
    declared, store = manifest.load(path), Store(path.parent / "store")
    build = pipeline.Pins(store).prepare(declared, declared.variants[variant], None, Fetching(path.parent))
    return Examination(build, pipeline.build(build))


@pytest.fixture
def project(tmp_path_factory, tmp_path) -> Path:
    """A copy of it to work in."""
    folder = tmp_path / "project"
    shutil.copytree(whole(tmp_path_factory.getbasetemp()), folder)
    return folder


@pytest.fixture
def examination(project: Path) -> Examination:
    return examined(project / "tiny.yaml")


@pytest.fixture
def prove(tmp_path, monkeypatch) -> Callable[..., Proof]:
    """`proving.prove` in an empty folder, with a few checks in the place of all."""
    places = iter(range(100))

    def prove(examination: Examination, *checks: str, **wishes: Any) -> Proof:
        monkeypatch.setattr(proving, "plan", lambda manifest, profile: checks or ("companions", "signature"))
        place = tmp_path / f"workspace-{next(places)}"
        place.mkdir()
        return proving.prove(examination, place, silent, **wishes)

    return prove


def silent(what: str, done: int, total: int | None) -> None:
    """Shows nothing."""


def put_check(project: Path, name: str, source: str) -> None:
    folder = project / "conformance" / "checks"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(source)


# What becomes of a fault


def test_a_fault_that_a_check_notices_is_told_with_what_the_check_said(examination, prove) -> None:
    [one] = prove(examination, only=("weights-pickled",)).tried
    assert one == Tried("weights-pickled", "pytorch_model.bin is there", one.noticed)
    assert "pytorch_model.bin" in one.noticed["companions"]


def test_a_fault_that_no_check_notices_is_a_survivor_and_the_proof_fails(examination, prove) -> None:
    proof = prove(examination, only=("sums-stale", UNNOTICED))
    assert [one.fault for one in proof.survivors] == [UNNOTICED]
    verdict = proof.verdict()
    assert (verdict.check, verdict.outcome) == ("prove", "failed")
    assert verdict.sentence == f"1 of 2 faults noticed; not: {UNNOTICED}"
    assert verdict.measured == {"faults": 2, "noticed": 1, "share": 0.5}
    assert [case["fault"] for case in verdict.worst] == [UNNOTICED]


@pytest.mark.parametrize(("survivors", "outcome", "margin"), [(0, "passed", 1), (1, "passed", 0), (2, "failed", -1)])
def test_one_fault_in_twenty_may_survive(survivors: int, outcome: str, margin: float) -> None:
    tried = tuple(Tried(f"{number}", "", {} if number < survivors else {"x": "no"}) for number in range(20))
    verdict = Proof(tried, ("x",), {}).verdict()
    assert (verdict.outcome, verdict.margin) == (outcome, pytest.approx(margin, abs=1e-9))


def test_a_fault_without_a_place_is_not_counted(examination, prove) -> None:
    proof = prove(examination, only=("rotary-base-misread", "prefix-dropped", "merges-cut", "sums-stale"))
    assert [one.fault for one in proof.tried] == ["sums-stale"]
    assert proof.placeless == ("rotary-base-misread", "prefix-dropped", "merges-cut")


def test_a_fault_named_twice_is_tried_once(examination, prove) -> None:
    assert len(prove(examination, only=("sums-stale", "sums-stale")).tried) == 1


def test_a_check_that_could_judge_nothing_is_told_with_its_reason(examination, prove) -> None:
    assert "modelkit golden" in prove(examination, "golden", only=("sums-stale",)).unasked["golden"]


def test_with_no_fault_that_has_a_place_there_is_no_proof(examination, prove) -> None:
    with pytest.raises(CheckError, match="tiny/int8: no fault has a place in it"):
        prove(examination, only=("merges-cut",))


def test_a_check_that_cannot_run_on_what_is_damaged_has_noticed(project, prove) -> None:
    body = "    if not (subject.artifact.folder / 'pytorch_model.bin').exists(): return Verdict('', 'passed', '')\n"
    put_check(project, "own", OWN + body + "    raise CheckError('cannot measure')\n")
    [one] = prove(examined(project / "tiny.yaml"), "own", only=("weights-pickled",)).tried
    assert "cannot measure" in one.noticed["own"]


def test_a_check_that_skips_what_is_damaged_has_not_noticed(project, prove) -> None:
    body = "    outcome = 'skipped' if (subject.artifact.folder / 'pytorch_model.bin').exists() else 'passed'\n"
    put_check(project, "own", OWN + body + "    return Verdict('', outcome, 'nothing to see')\n")
    assert prove(examined(project / "tiny.yaml"), "own", only=("weights-pickled",)).survivors


def test_a_fault_of_models_that_give_something_else_is_not_tried_unless_it_is_named(examination, prove) -> None:
    """The config of this encoder has labels that nothing reads."""
    tried = {one.fault for one in prove(examination, "companions").tried}
    assert "labels-exchanged" not in tried
    assert "bias-zeroed" in tried
    assert prove(examination, "companions", only=("labels-exchanged",)).tried


# Who is asked


def test_the_checks_of_a_fault_end_with_the_first_that_fails(examination, prove) -> None:
    [one] = prove(examination, "companions", "hygiene", only=("weights-pickled",)).tried
    assert len(one.noticed) == 1


def test_every_check_is_asked_about_every_fault_if_that_is_wanted(examination, prove) -> None:
    proof = prove(examination, "companions", "hygiene", "signature", only=("weights-pickled",), every=True)
    assert set(proof.tried[0].noticed) == {"companions", "hygiene"}
    assert proof.idle == ("signature",)


def test_a_check_that_skips_the_undamaged_artifact_is_not_asked(examination, prove) -> None:
    """Nothing is recorded for `golden`."""
    assert prove(examination, "golden", "companions", only=("sums-stale",)).checks == ("companions",)


def test_what_does_not_conform_undamaged_proves_nothing(project, prove) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("budget: 1 MB", "budget: 1 kB", 1))
    with pytest.raises(CheckError, match=r"tiny/int8 does not conform undamaged: .*budget"):
        prove(examined(path), "budget", only=("sums-stale",))


# Where faults go


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        ("norm-epsilon-wrong", {"artifact"}),  # graph
        ("text-cut-short", {"artifact"}),  # folder
        ("epsilon-misread", {"artifact", "reference"}),  # source
        ("pooling-exchanged", {"artifact", "reference"}),  # recipe
    ],
)
def test_a_fault_reaches_the_artifact_and_never_the_source_it_is_compared_with(
    project, prove, fault: str, changed: set[str]
) -> None:
    noted = project / "seen.jsonl"
    put_check(project, "seen", SEEN.format(path=str(noted)))
    prove(examined(project / "tiny.yaml"), "seen", only=(fault,))
    undamaged, damaged = (json.loads(line) for line in noted.read_text().splitlines())
    assert {name for name in undamaged if undamaged[name] != damaged[name]} == changed


@pytest.mark.parametrize("fault", ["norm-epsilon-wrong", "epsilon-misread", "pooling-exchanged", "length-kept"])
def test_what_stands_beside_a_damaged_graph_gives_nothing_away(examination, prove, fault: str) -> None:
    """Sums, configuration and card are what a build that made the mistake would have written."""
    assert prove(examination, "companions", only=(fault,)).survivors


def test_a_stage_that_refuses_what_is_damaged_has_noticed(examination, prove) -> None:
    [one] = prove(examination, only=("layer-left-out",)).tried
    assert one.told == "num_hidden_layers is 1"
    assert list(one.noticed) == ["build"]
    assert "encoder.layer.1." in one.noticed["build"]


def test_the_same_seed_damages_the_same_and_another_something_else(examination, prove) -> None:
    faults = ("bias-zeroed", "scale-bit-flipped", "vocabulary-rows-swapped")
    told = [[one.told for one in prove(examination, only=faults, seed=seed).tried] for seed in (3, 3, 4)]
    assert told[0] == told[1]
    assert told[0] != told[2]


def test_what_is_drawn_for_a_fault_does_not_depend_on_the_others(examination, prove) -> None:
    alone = prove(examination, only=("bias-zeroed",)).tried
    assert prove(examination, only=("scale-bit-flipped", "bias-zeroed")).tried[-1].told == alone[0].told


def test_what_is_built_again_from_the_undamaged_source_notices_nothing(examination, prove) -> None:
    full = replace(examination, profile="full")
    proof = prove(full, "reproducible", "companions", only=(UNNOTICED,))
    assert proof.checks == ("companions",)
    assert [one.fault for one in proof.survivors] == [UNNOTICED]


# What it leaves behind


def test_nothing_damaged_gets_into_the_store(examination, prove) -> None:
    def held() -> Any:
        made = {artifact.digest: digest_folder(artifact.folder) for artifact in examination.build.store.entries()}
        return made, sorted((examination.build.store.root / "records").rglob("*.json"))

    before = held()
    prove(examination, "parity", "companions", only=("sums-stale", "epsilon-misread", "norm-epsilon-wrong"))
    assert held() == before


def test_a_warm_artifact_is_proven_without_its_source(project, prove) -> None:
    """Nothing is downloaded or converted once more only because the verdicts go elsewhere."""
    warm = examined(project / "tiny.yaml")
    warm.build.made.clear()
    shutil.rmtree(project / "weights")
    assert prove(warm, only=("epsilon-misread",)).tried


def test_a_proof_that_holds_is_recorded_and_one_that_does_not_is_taken_anew(examination, monkeypatch) -> None:
    monkeypatch.setattr(proving, "plan", lambda manifest, profile: ("companions",))
    for faults, reused in ((("sums-stale",), [False, True]), (("sums-stale", UNNOTICED), [False, False])):
        monkeypatch.setattr(proving, "_fitting", lambda manifest, faults=faults: faults)
        monkeypatch.setattr(proving, "key", lambda examination, faults=faults: f"{len(faults):064x}")
        assert [proving.verdict(examination).reused for _ in range(2)] == reused


def test_the_key_of_a_proof_knows_the_faults_the_checks_and_the_artifact(project) -> None:
    path = project / "tiny.yaml"
    keys = [proving.key(examined(path)), proving.key(examined(path, "int4"))]
    put_check(project, "own", OWN + "    return Verdict('', 'passed', '')\n")
    keys.append(proving.key(examined(path)))
    assert len(set(keys)) == 3
    assert keys[2] == proving.key(examined(path))


def test_the_key_of_a_proof_knows_how_faults_get_into_an_artifact(examination, tmp_path, monkeypatch) -> None:
    before = proving.key(examination)
    edited = tmp_path / "spoiling.py"
    edited.write_text(Path(spoiling.__file__).read_text() + "EDITED = True\n")
    monkeypatch.setattr(spoiling, "__file__", str(edited))
    assert proving.key(examination) != before


def test_no_check_may_be_called_as_the_proof_is(project) -> None:
    put_check(project, "prove", OWN + "    return Verdict('', 'passed', '')\n")
    with pytest.raises(ManifestError, match="no check may be called prove"):
        conformance.plan(manifest.load(project / "tiny.yaml"))


def test_a_fault_of_a_runtime_that_the_manifest_does_not_name_has_no_place(examination, prove) -> None:
    with pytest.raises(CheckError, match="no fault has a place in it"):
        prove(examination, only=("opset-too-new",))
    job = examination.build.job
    everywhere = replace(job.manifest, runtimes=("onnxruntime", "onnxruntime-web"))
    named = replace(examination, build=replace(examination.build, job=replace(job, manifest=everywhere)))
    [tried] = prove(named, "portability", only=("opset-too-new",)).tried
    assert list(tried.noticed) == ["portability"]
