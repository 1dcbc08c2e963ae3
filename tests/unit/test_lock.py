"""lock.py and the comparing half of locking.py: what a manifest resolved to, in a file that reads back as it was."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_models
from modelkit import kinds, lock, locking
from modelkit.errors import ManifestError
from modelkit.schemes import w8a8_per_token
from modelkit.sources import path as path_source
from modelkit.vocabulary import Choice, FileDigest, KnownFailure, Manifest, Place, Source, Variant

DIGESTS = st.builds(FileDigest, st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0, 2**40))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
FILES = st.dictionaries(NAMES, DIGESTS, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
LOCKS = st.builds(
    lock.Lock,
    source=FILES,
    identity=NAMES,
    recipe=st.dictionaries(NAMES, JSON, max_size=3),
    tools=st.dictionaries(NAMES, NAMES, max_size=3),
    artifacts=st.dictionaries(NAMES, FILES, max_size=2),
    measured=st.dictionaries(NAMES, st.dictionaries(NAMES, JSON, max_size=2), max_size=2),
)
A, B = FileDigest("a" * 64, 1), FileDigest("b" * 64, 2)
LOCK = lock.Lock({"config.json": A}, "commit", {"name": "tiny"}, {"onnx": "1.0"}, {"int8": {"model.onnx": B}}, {})


def manifest_at(folder: Path) -> Manifest:
    return replace(small_models.manifest_of(), path=folder / "tiny.yaml")


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "tiny.lock"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "tiny.yaml"


# Reading and writing


def test_the_lock_stands_beside_its_manifest() -> None:
    assert lock.path_of(Path("manifests/minilm-l6.yaml")) == Path("manifests/minilm-l6.lock")


def test_a_name_with_dots_keeps_them() -> None:
    assert lock.path_of(Path("bge-v1.5.yaml")) == Path("bge-v1.5.lock")


def test_no_file_is_no_lock(tmp_path: Path) -> None:
    assert lock.read(tmp_path / "tiny.yaml") is None


@given(locked=LOCKS)
def test_a_lock_reads_back_as_it_was_written(locked: lock.Lock) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert lock.read(written(Path(folder), lock.text(locked))) == locked


@given(locked=LOCKS)
def test_the_text_does_not_depend_on_the_order_things_were_found_in(locked: lock.Lock) -> None:
    turned = replace(
        locked,
        source=dict(reversed(locked.source.items())),
        recipe=dict(reversed(locked.recipe.items())),
        artifacts={name: dict(reversed(files.items())) for name, files in reversed(locked.artifacts.items())},
    )
    assert lock.text(turned) == lock.text(locked)


def test_a_lock_without_reasons_says_nothing_of_them() -> None:
    assert "reasons" not in lock.text(LOCK)
    assert '"reasons"' in lock.text(replace(LOCK, reasons={"int8": {"trials": 3}}))


def test_the_text_ends_with_a_line_break_and_names_no_machine() -> None:
    text = lock.text(LOCK)
    assert text.endswith("}\n")
    assert str(Path.cwd()) not in text


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"format": 1}', b'{"format": 1, "source": []}'],
)
def test_what_is_no_lock_is_told_with_how_to_make_one(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        lock.read(written(tmp_path, content))
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'tiny.lock'}: is no lock")
    assert told.endswith(f"run `modelkit lock {tmp_path / 'tiny.yaml'}`")


def test_a_lock_of_another_format_is_told_with_both_numbers(tmp_path: Path) -> None:
    fields = {**json.loads(lock.text(LOCK)), "format": 99}
    with pytest.raises(ManifestError, match="has format 99, this modelkit reads 1"):
        lock.read(written(tmp_path, json.dumps(fields)))


def test_a_lock_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "tiny.lock").mkdir()
    with pytest.raises(ManifestError, match=r"tiny\.lock: cannot be read \(Is a directory\)"):
        lock.read(tmp_path / "tiny.yaml")


@given(data=st.data(), junk=JSON)
def test_a_lock_with_anything_in_place_of_a_value_is_read_or_told(data: st.DataObject, junk: Any) -> None:
    fields = json.loads(lock.text(LOCK))
    at, key = fields, data.draw(st.sampled_from(sorted(fields)))
    while isinstance(at[key], dict) and at[key] and data.draw(st.booleans()):
        at, key = at[key], data.draw(st.sampled_from(sorted(at[key])))
    at[key] = junk
    with tempfile.TemporaryDirectory() as folder:
        manifest = manifest_at(Path(folder))
        # Any other exception than the one for its reader is a crash.
        with suppress(ManifestError):
            locked = lock.read(written(Path(folder), json.dumps(fields)))
            assert locked is not None
            lock.text(locked)
            lock.insist_current(manifest, locked)


# The recipe


def changed(manifest: Manifest, **fields: Any) -> Manifest:
    return replace(manifest, **fields)


W8 = Variant("int8", Choice("w8a8-per-token", w8a8_per_token.Options()), "dev")
PLAIN = replace(small_models.manifest_of(), variants={"int8": W8})
OTHER_SOURCE = Choice("path", path_source.Options("elsewhere"))
SIXTEEN = Choice("w8a8-per-token", w8a8_per_token.Options(("*.value.weight",)))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (changed(PLAIN, name="other"), "name: tiny -> other"),
        (changed(PLAIN, task=small_models.manifest_of(pooling="cls").task), "pooling: mean -> cls"),
        (changed(PLAIN, source=Source(OTHER_SOURCE)), "source.path.path: weights -> elsewhere"),
        (changed(PLAIN, export=Choice("prebuilt", kinds.load("exporters", "prebuilt").Options())), "export."),
        (changed(PLAIN, variants={"int8": replace(W8, scheme=SIXTEEN)}), "activations_16bit[0]: added *.value.weight"),
        (changed(PLAIN, variants={}), "variants.int8: removed"),
        (changed(PLAIN, variants={"int8": W8, "b": replace(W8, name="b")}), "variants.b: added"),
    ],
)
def test_what_decides_the_bytes_is_in_the_recipe(other: Manifest, told: str) -> None:
    locked = replace(LOCK, recipe=lock.recipe(PLAIN))
    with pytest.raises(ManifestError) as caught:
        lock.insist_current(other, locked)
    assert str(caught.value).startswith("tiny.lock: was locked for another recipe: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        changed(PLAIN, license="MIT"),
        changed(PLAIN, source=replace(PLAIN.source, mirrors=(OTHER_SOURCE,))),
        changed(PLAIN, variants={"int8": replace(W8, budget=1, channel="prod", limits={"parity": 1})}),
        changed(PLAIN, known_failures=(KnownFailure("int8", "parity", "x", date(2099, 1, 1), Place(Path("x"))),)),
    ],
)
def test_what_does_not_decide_the_bytes_is_not(other: Manifest) -> None:
    lock.insist_current(other, replace(LOCK, recipe=lock.recipe(PLAIN)))


def test_more_than_one_change_is_counted() -> None:
    other = changed(PLAIN, name="other", task=small_models.manifest_of(pooling="cls").task)
    with pytest.raises(ManifestError, match=r"\(and 1 more\)"):
        lock.insist_current(other, replace(LOCK, recipe=lock.recipe(PLAIN)))


def test_the_recipe_survives_the_file() -> None:
    options = Choice("w8a8-per-token", w8a8_per_token.Options(("a", "b")))
    manifest = changed(PLAIN, variants={"int8": replace(W8, scheme=options)})
    assert json.loads(json.dumps(lock.recipe(manifest))) == lock.recipe(manifest)


# Comparing two


def test_without_an_old_lock_everything_is_new() -> None:
    assert locking.compare(None, LOCK) == ["there is no lock yet"]


@given(locked=LOCKS)
def test_a_lock_does_not_differ_from_itself(locked: lock.Lock) -> None:
    assert locking.compare(locked, locked) == []


def test_figures_and_tools_alone_are_no_difference() -> None:
    other = replace(LOCK, measured={"int8": {"parity": {"cosine": 0.5}}}, tools={"onnx": "2.0"})
    assert locking.compare(LOCK, other) == []


@pytest.mark.parametrize(
    ("old", "changes", "sentence"),
    [
        (None, {}, "written"),
        (LOCK, {}, "unchanged"),
        (LOCK, {"measured": {"int8": {"parity": {"cosine_min": 0.5}}}}, "the same files, other figures"),
        (LOCK, {"tools": {"onnx": "2.0"}}, "the same files, other tools"),
        (
            LOCK,
            {"measured": {"int8": {}}, "processor": {"machine": "a"}},
            "the same files, other figures and processor",
        ),
        (LOCK, {"identity": "other", "tools": {}}, "identity: commit -> other"),
        (LOCK, {"identity": "x", "recipe": {"name": "y"}}, "identity: commit -> x; recipe.name: tiny -> y"),
    ],
)
def test_what_is_written_is_told_in_a_few_words(old: lock.Lock | None, changes: dict[str, Any], sentence: str) -> None:
    assert locking.told(old, replace(LOCK, **changes)) == sentence


@given(old=LOCKS, new=LOCKS, taken=st.sets(st.sampled_from(["tools", "measured"])))
def test_unchanged_is_said_of_the_same_text_alone(old: lock.Lock, new: lock.Lock, taken: set[str]) -> None:
    fresh = replace(old, **{name: getattr(new, name) for name in taken})
    assert (locking.told(old, fresh) == "unchanged") == (lock.text(old) == lock.text(fresh))


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (replace(LOCK, source={"config.json": B}), "source.config.json: aaaaaaaaaaaa… -> bbbbbbbbbbbb…"),
        (replace(LOCK, identity="other"), "identity: commit -> other"),
        (replace(LOCK, recipe={"name": "x"}), "recipe.name: tiny -> x"),
        (
            replace(LOCK, artifacts={"int8": {"model.onnx": A}}),
            "artifacts.int8.model.onnx: bbbbbbbbbbbb… -> aaaaaaaaaaaa…",
        ),
        (replace(LOCK, artifacts={}), "artifacts.int8: removed"),
    ],
)
def test_each_difference_is_one_line(other: lock.Lock, line: str) -> None:
    [told] = locking.compare(LOCK, other)
    assert told.startswith(line)
