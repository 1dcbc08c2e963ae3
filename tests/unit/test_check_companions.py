"""Companions: each file beside the model that is not the one that belongs there fails by name. It is never skipped and
can always run: it reads files, and whatever cannot be read is what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.checks import companions, hygiene
from modelkit.stages.finalize import SUMS, write_sums
from modelkit.vocabulary import Subject, Verdict
from subjects import artifact, copied, good, pictures
from writers import LLAMA, T5, in_file, learned

CARD = "modelkit.json"


@pytest.fixture
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return good(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(subject: Subject, tmp_path: Path) -> Subject:
    """`subject` with an artifact to spoil."""
    return copied(subject, tmp_path / "copy")


def verdict_of(subject: Subject) -> Verdict:
    return companions.check(subject, companions.Options())


def summed(subject: Subject) -> Subject:
    """`subject` as a build would have left it that made these files."""
    write_sums(subject.artifact.folder)
    return replace(subject, artifact=artifact(subject.artifact.folder))


def fails_with(verdict: Verdict, *sentences: str) -> bool:
    return (verdict.outcome, verdict.sentence) == ("failed", "; ".join(sentences))


def in_card(edit: Callable[[dict[str, Any]], object]) -> Callable[[Subject], Subject]:
    return in_file(CARD, edit)


def test_a_good_artifact_passes(subject):
    verdict = verdict_of(subject)
    assert (verdict.outcome, verdict.sentence, verdict.measured) == (
        "passed", "4 files beside the model, as they should be", {"files": 4},
    )  # fmt: skip


@pytest.mark.parametrize("name", [LLAMA, T5])
def test_a_model_that_writes_passes_with_its_chat_template_and_settings(tmp_path_factory, name):
    assert verdict_of(learned(tmp_path_factory.getbasetemp(), name)).outcome == "passed"


def test_a_model_of_two_parts_passes(tmp_path_factory):
    assert verdict_of(pictures(tmp_path_factory.getbasetemp())).outcome == "passed"


# Files


def test_a_tokenizer_of_another_model_fails_though_it_was_built_so(copy):
    (copy.artifact.folder / "tokenizer.json").write_text("{}")
    spoiled = summed(copy)
    assert hygiene.check(spoiled, hygiene.Options()).outcome == "passed"
    assert fails_with(verdict_of(spoiled), "tokenizer.json is not the source's (added_tokens differs)")


def test_a_config_with_another_number_fails_and_the_key_is_named(copy):
    spoiled = summed(in_file("config.json", lambda config: config.update(layer_norm_eps=1e-5))(copy))
    assert fails_with(verdict_of(spoiled), "config.json is not the source's (layer_norm_eps differs)")


def test_settings_by_which_a_model_writes_elsewhere_fail(tmp_path_factory, tmp_path):
    subject = copied(learned(tmp_path_factory.getbasetemp(), LLAMA), tmp_path / "copy")
    spoiled = summed(in_file("generation_config.json", lambda fields: fields.update(eos_token_id=3))(subject))
    assert fails_with(verdict_of(spoiled), "generation_config.json is not the source's (eos_token_id differs)")


def test_other_spaces_are_other_bytes_and_no_key_differs(copy):
    path = copy.artifact.folder / "config.json"
    path.write_text(path.read_text() + "\n")
    assert fails_with(verdict_of(summed(copy)), "config.json is not the source's")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[1]"])
def test_a_file_that_is_no_json_object_fails_and_is_no_crash(copy, content):
    (copy.artifact.folder / "config.json").write_bytes(content)
    assert fails_with(verdict_of(summed(copy)), "config.json is not the source's")


def test_a_file_that_the_source_does_not_have_fails(copy):
    (copy.artifact.folder / "notes.txt").write_text("hello")
    assert fails_with(verdict_of(summed(copy)), "notes.txt comes from nowhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_file_that_was_left_out_fails(copy, name):
    (copy.artifact.folder / name).unlink()
    assert fails_with(verdict_of(summed(copy)), f"{name} is missing")


def test_a_file_that_converting_made_is_held_against_what_converting_made(copy, tmp_path):
    bare = tmp_path / "source"
    bare.mkdir()
    without = replace(copy, source=artifact(bare))
    assert verdict_of(without).outcome == "passed"
    (copy.artifact.folder / "tokenizer.json").write_text("{}")
    assert verdict_of(summed(without)).sentence.startswith("tokenizer.json is not the source's")


def test_a_file_that_converting_made_of_the_sources_own_fails(copy, tmp_path):
    made = copied(replace(copy, artifact=copy.reference), tmp_path / "float32").artifact
    for folder in (made.folder, copy.artifact.folder):
        (folder / "tokenizer.json").write_text("{}")
    both = summed(replace(copy, reference=made))
    assert fails_with(verdict_of(both), "tokenizer.json is not the source's (added_tokens differs)")


# The card


@pytest.mark.parametrize(
    ("key", "value"), [("name", "other"), ("task", "text-generation"), ("options", {}), ("author", "somebody")]
)
def test_a_card_that_says_something_else_fails_and_the_key_is_named(copy, key, value):
    spoiled = summed(in_card(lambda card: card.update({key: value}))(copy))
    assert fails_with(verdict_of(spoiled), f"modelkit.json says another {key} than the manifest")


def test_a_card_with_another_option_deep_inside_fails(copy):
    spoiled = summed(in_card(lambda card: card["options"]["text"].update(pooling="cls"))(copy))
    assert fails_with(verdict_of(spoiled), "modelkit.json says another options than the manifest")


def test_a_card_that_leaves_a_key_out_fails(copy):
    spoiled = summed(in_card(lambda card: card.pop("task"))(copy))
    assert fails_with(verdict_of(spoiled), "modelkit.json says another task than the manifest")


def test_a_card_that_the_float32_model_has_wrong_as_well_fails(copy):
    # Both are made by one stage, so that the two being alike says nothing.
    other = replace(copy, manifest=replace(copy.manifest, name="renamed"))
    assert fails_with(verdict_of(other), "modelkit.json says another name than the manifest")


def test_a_card_that_is_no_json_fails_and_is_no_crash(copy):
    (copy.artifact.folder / CARD).write_text("[")
    verdict = verdict_of(summed(copy))
    assert verdict.outcome == "failed"
    assert verdict.sentence.startswith("modelkit.json is no JSON")


def test_a_card_that_is_missing_fails(copy):
    (copy.artifact.folder / CARD).unlink()
    assert verdict_of(summed(copy)).sentence.startswith("modelkit.json is missing")


# The sums


def test_no_sums_fail(copy):
    (copy.artifact.folder / SUMS).unlink()
    assert fails_with(verdict_of(copy), "there is no SHA256SUMS")


def test_sums_of_another_build_fail_though_every_file_is_as_built(copy):
    path = copy.artifact.folder / SUMS
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace(lines[0][:64], "0" * 64), *lines[1:]]) + "\n")
    spoiled = replace(copy, artifact=artifact(copy.artifact.folder))
    assert hygiene.check(spoiled, hygiene.Options()).outcome == "passed"
    assert fails_with(verdict_of(spoiled), f"SHA256SUMS has another sum of {lines[0][66:]}")


def test_sums_that_leave_a_file_out_fail(copy):
    path = copy.artifact.folder / SUMS
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "model.onnx" not in line))
    assert fails_with(verdict_of(copy), "SHA256SUMS has another sum of model.onnx")


def test_sums_of_a_file_that_is_not_there_fail(copy):
    path = copy.artifact.folder / SUMS
    path.write_text(path.read_text() + f"{'0' * 64}  vocab.txt\n")
    assert fails_with(verdict_of(copy), "SHA256SUMS has another sum of vocab.txt")


def test_sums_that_are_no_text_fail_and_are_no_crash(copy):
    (copy.artifact.folder / SUMS).write_bytes(b"\xff\x00\n")
    assert verdict_of(copy).outcome == "failed"


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_of_any_file_beside_the_model_fails(tmp_path_factory, place, bit):
    copy = copied(good(tmp_path_factory.getbasetemp()), tmp_path_factory.mktemp("flipped") / "copy")
    files = sorted(path for path in copy.artifact.folder.iterdir() if path.suffix != ".onnx")
    path = files[place % len(files)]
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    verdict = verdict_of(copy)
    assert verdict.outcome == "failed"
    assert path.name in verdict.sentence


def test_every_problem_is_named(copy):
    (copy.artifact.folder / "notes.txt").write_text("hello")
    (copy.artifact.folder / "config.json").unlink()
    assert fails_with(
        verdict_of(in_card(lambda card: card.update(name="other"))(copy)),
        "notes.txt comes from nowhere", "config.json is missing", "modelkit.json says another name than the manifest",
        "SHA256SUMS has another sum of config.json", "SHA256SUMS has another sum of modelkit.json",
        "SHA256SUMS has another sum of notes.txt",
    )  # fmt: skip
