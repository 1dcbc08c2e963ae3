"""Golden: the original's numbers pass, all others fail, and what was recorded of another model counts for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit import durable, kinds
from modelkit.checks import golden
from modelkit.errors import CheckError
from modelkit.reference import recorded
from modelkit.tasks import feature_extraction
from modelkit.vocabulary import Choice, FileDigest, Manifest, Stage, Subject, Verdict
from subjects import fake, texts

SOURCE = {"config.json": FileDigest("c" * 64, 3), "model.safetensors": FileDigest("d" * 64, 9)}
CORPUS = texts(*(f"text {number}" for number in range(5)))
ROWS = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)


def manifest_in(folder: Path, **text: Any) -> Manifest:
    (folder / "conformance").mkdir(exist_ok=True)
    options = feature_extraction.Options(feature_extraction.Text(**text))
    return replace(fake().manifest, path=folder / "tiny.yaml", task=Choice("feature-extraction", options))


def recorded_in(folder: Path, rows: np.ndarray = ROWS, **text: Any) -> Path:
    """A golden in the project `folder`."""
    declared = manifest_in(folder, **text)
    path = recorded.path_of(declared)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recorded.text(declared, SOURCE, CORPUS[: len(rows)], rows, {"transformers": "4"}))
    return path


def subject(folder: Path, reference: np.ndarray, artifact: np.ndarray | None = None, **text: Any) -> Subject:
    made = fake(manifest=manifest_in(folder, **text), corpus=CORPUS)
    given_ = {made.reference.digest: reference, made.artifact.digest: reference if artifact is None else artifact}
    stage = Stage("downloaded", "k", {"files": {name: [one.sha256, one.size] for name, one in SOURCE.items()}})
    opened = lambda which, threads=None: SimpleNamespace(outputs=lambda lines, batch_size=32: given_[which.digest])  # noqa: E731
    return replace(made, open=opened, reference=replace(made.reference, chain=(stage,)))


def verdict_of(folder: Path, reference: np.ndarray, artifact: np.ndarray | None = None, **text: Any) -> Verdict:
    return golden.check(subject(folder, reference, artifact, **text), golden.Options())


def test_the_recorded_numbers_pass(tmp_path):
    recorded_in(tmp_path)
    verdict = verdict_of(tmp_path, ROWS)
    assert (verdict.outcome, verdict.measured["rows"], verdict.measured["max_abs"]) == ("passed", 5, 0)


def test_a_difference_within_the_limit_passes_and_one_beyond_it_fails(tmp_path):
    recorded_in(tmp_path)
    near, far = ROWS.copy(), ROWS.copy()
    near[2, 3] += 4e-5
    far[2, 3] += 6e-5
    assert verdict_of(tmp_path, near).outcome == "passed"
    verdict = verdict_of(tmp_path, far)
    assert (verdict.outcome, verdict.worst[0]["id"]) == ("failed", "t002")
    assert "max_abs" in verdict.sentence


def test_one_row_that_points_elsewhere_fails(tmp_path):
    recorded_in(tmp_path, ROWS * 1e-5)
    turned = ROWS * 1e-5
    turned[4] = turned[4, ::-1]
    verdict = verdict_of(tmp_path, turned)
    assert verdict.outcome == "failed"
    assert "cosine_min" in verdict.sentence


def test_a_zero_row_fails(tmp_path):
    recorded_in(tmp_path)
    assert verdict_of(tmp_path, np.zeros_like(ROWS)).outcome == "failed"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_fails_and_its_row_is_named(tmp_path, value):
    recorded_in(tmp_path)
    broken = ROWS.copy()
    broken[1, 0] = value
    verdict = verdict_of(tmp_path, broken)
    assert (verdict.outcome, verdict.sentence) == ("failed", "row t001 is not finite (1 such rows)")
    json.dumps(asdict(verdict), allow_nan=False)


def test_another_width_fails(tmp_path):
    recorded_in(tmp_path)
    verdict = verdict_of(tmp_path, ROWS[:, :8])
    assert (verdict.outcome, verdict.sentence) == ("failed", "row t000 was recorded with another width than 8")


def test_how_far_the_artifact_is_from_the_original_is_told_but_not_judged(tmp_path):
    recorded_in(tmp_path)
    verdict = verdict_of(tmp_path, ROWS, ROWS[:, ::-1])
    assert verdict.outcome == "passed"
    assert verdict.measured["artifact_cosine_min"] < 0.9


def test_without_a_recording_it_is_skipped_and_says_what_to_do(tmp_path):
    verdict = verdict_of(tmp_path, ROWS)
    assert (verdict.outcome, verdict.sentence) == (
        "skipped", "there is no tiny.json; record one with `modelkit golden`"
    )  # fmt: skip


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads(path.read_text())
    edit(fields)
    path.write_text(json.dumps(fields))


def test_a_recording_of_other_weights_is_skipped_and_says_so(tmp_path):
    edited(recorded_in(tmp_path), lambda fields: fields["source"].update({"model.safetensors": "e" * 64}))
    verdict = verdict_of(tmp_path, ROWS)
    assert verdict.outcome == "skipped"
    assert verdict.sentence.startswith("recorded from other weights (model.safetensors differs)")


def test_a_recording_with_other_options_is_skipped_and_says_so(tmp_path):
    recorded_in(tmp_path, pooling="cls")
    verdict = verdict_of(tmp_path, ROWS)
    assert verdict.sentence.startswith("recorded with other options of feature-extraction")
    assert verdict.outcome == "skipped"


def test_an_option_that_the_task_has_learnt_since_stands_at_its_default(tmp_path):
    edited(recorded_in(tmp_path), lambda fields: fields["options"]["text"].pop("normalize"))
    assert verdict_of(tmp_path, ROWS).outcome == "passed"
    assert verdict_of(tmp_path, ROWS, normalize=False).outcome == "skipped"


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "cut values": lambda fields: fields["rows"][1].update(values=fields["rows"][1]["values"][:40]),
    "no base64": lambda fields: fields["rows"][1].update(values="!" + fields["rows"][1]["values"]),
    "no values": lambda fields: fields["rows"][1].update(values=""),
    "no text": lambda fields: fields["rows"][1].pop("text"),
    "places beyond the row": lambda fields: fields["rows"][1].update(places=list(range(1, 17))),
    "no rows": lambda fields: fields.update(rows=[]),
    "no source": lambda fields: fields.pop("source"),
    "another format": lambda fields: fields.update(format=9),
    "a number that is none": lambda fields: fields["rows"][0].update(values="AADAfwAAwH8=", width=2),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_recording_could_not_be_checked_and_names_the_file(tmp_path, damage):
    path = recorded_in(tmp_path)
    edited(path, DAMAGES[damage])
    with pytest.raises(CheckError, match=r"tiny\.json: is no golden \(.+\); delete tiny\.json, or record it again"):
        verdict_of(tmp_path, ROWS)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_file_that_is_no_json_could_not_be_checked(tmp_path, content):
    recorded_in(tmp_path).write_bytes(content)
    with pytest.raises(CheckError, match="is no golden"):
        verdict_of(tmp_path, ROWS)


@given(cut=st.integers(0, 2000))
def test_a_cut_recording_never_passes(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    path = recorded_in(folder)
    content = path.read_text().rstrip()
    path.write_text(content[: cut % len(content)])
    with pytest.raises(CheckError, match="is no golden"):
        verdict_of(folder, ROWS)


def test_of_a_long_row_the_largest_and_some_others_are_kept(tmp_path):
    logits = np.random.default_rng(1).normal(size=(2, 50_000)).astype(np.float32)
    path = recorded_in(tmp_path, logits)
    assert path.stat().st_size < 4000
    read = recorded.read(manifest_in(tmp_path))
    assert read is not None
    for row, whole in zip(read["rows"], logits, strict=True):
        assert set(np.argsort(-whole)[:32]) <= set(row["places"])
        assert 60 <= len(row["places"]) <= 64
        assert (whole[row["places"]] == row["values"]).all()
    assert verdict_of(tmp_path, logits).outcome == "passed"
    logits[1, np.argmax(logits[1])] += 1e-3
    assert verdict_of(tmp_path, logits).outcome == "failed"


def test_a_recording_without_a_project_lies_beside_the_manifest_and_makes_none(tmp_path):
    declared = replace(manifest_in(tmp_path), path=tmp_path / "models" / "tiny.yaml")
    (tmp_path / "conformance").rmdir()
    path = recorded.path_of(declared)
    assert path == tmp_path / "models" / "tiny.golden.json"
    durable.put(path, recorded.text(declared, SOURCE, CORPUS, ROWS, {"transformers": "4"}).encode())
    assert kinds.project_of(declared.path) is None
    read = recorded.read(declared)
    assert read is not None
    assert len(read["rows"]) == len(CORPUS)


def test_a_recording_made_before_there_was_a_project_does_not_hide_it(tmp_path):
    declared = replace(manifest_in(tmp_path), path=tmp_path / "models" / "tiny.yaml")
    (tmp_path / "conformance").rmdir()
    durable.put(recorded.path_of(declared), b"{}")
    (tmp_path / "conformance").mkdir()
    assert kinds.project_of(declared.path) == tmp_path
    assert recorded.path_of(declared) == tmp_path / "conformance" / "golden" / "tiny.json"


def test_of_two_projects_the_nearest_has_the_recording(tmp_path):
    manifest_in(tmp_path)
    inner = tmp_path / "models"
    (inner / "conformance").mkdir(parents=True)
    assert recorded.path_of(manifest_in(inner)) == inner / "conformance" / "golden" / "tiny.json"


def test_a_recording_changes_the_key_of_the_verdict(tmp_path):
    declared = manifest_in(tmp_path)
    before = golden.reads(declared)
    path = recorded_in(tmp_path)
    with_one = golden.reads(declared)
    edited(path, lambda fields: fields["rows"].pop())
    assert len({json.dumps(one) for one in (before, with_one, golden.reads(declared))}) == 3


def test_the_selection_has_every_group_and_does_not_depend_on_the_order():
    corpus = [{"id": f"{group}{n}", "text": "x" * n, "group": group} for group in "cab" for n in range(1, 30)]
    chosen = recorded.select(corpus)
    assert {row["group"] for row in chosen} == set("abc")
    assert {row["id"] for row in recorded.select(corpus[::-1])} == {row["id"] for row in chosen}
    assert {"a1", "a29", "a15"} <= {row["id"] for row in chosen}


def test_the_selection_is_about_twelve_rows_and_never_fewer_than_groups():
    many = [{"id": f"{n}", "text": f"{n}", "group": f"{n % 20}"} for n in range(100)]
    few = [{"id": f"{n}", "text": f"{n}", "group": f"{n % 5}"} for n in range(100)]
    assert (len(recorded.select(many)), len(recorded.select(few))) == (20, 12)
