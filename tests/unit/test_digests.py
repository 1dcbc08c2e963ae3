from __future__ import annotations

import enum
import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelkit.digests import difference, digest_file, digest_folder, digest_of, key_of, members, seal, unseal
from modelkit.errors import ArtifactError
from modelkit.vocabulary import FileDigest


class Size(enum.IntEnum):
    SMALL = 1


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
materials = st.dictionaries(st.text(max_size=5), values, max_size=4)


def turned_round(value: Any) -> Any:
    """The same value with the keys of every dictionary in the opposite order."""
    if isinstance(value, dict):
        return {name: turned_round(inner) for name, inner in reversed(value.items())}
    return [turned_round(inner) for inner in value] if isinstance(value, list) else value


# Keys


def test_the_key_of_an_empty_material_is_the_sha256_of_two_braces() -> None:
    assert key_of({}) == hashlib.sha256(b"{}").hexdigest()


def test_the_key_of_a_known_material_never_changes() -> None:
    material = {"stage": "convert", "options": {"opset": 21, "naïve": [True, None, 0.5]}}
    text = r'{"options":{"na\u00efve":[true,null,0.5],"opset":21},"stage":"convert"}'
    assert key_of(material) == hashlib.sha256(text.encode()).hexdigest()


@given(materials)
def test_the_order_of_keys_does_not_change_the_key(material: dict[str, Any]) -> None:
    assert key_of(turned_round(material)) == key_of(material)


@given(materials)
def test_a_trip_through_json_does_not_change_the_key(material: dict[str, Any]) -> None:
    assert key_of(json.loads(json.dumps(material))) == key_of(material)


def test_any_mapping_will_do_as_material() -> None:
    assert key_of(OrderedDict(b=1, a=2)) == key_of({"a": 2, "b": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [(True, 1), (1, 1.0), (False, 0), (0, None), ("1", 1), ([], {}), ("", None), ([1, 2], [2, 1]), (0.0, -0.0)],
)
def test_values_that_python_or_people_take_for_equal_give_different_keys(one: Any, other: Any) -> None:
    assert key_of({"value": one}) != key_of({"value": other})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ((1, 2), "tuple"),
        ({1}, "set"),
        (b"x", "bytes"),
        (Path("x"), "PosixPath"),
        (np.float64(1.0), "float64"),
        (np.int64(1), "int64"),
        (Size.SMALL, "Size"),
        (OrderedDict(), "OrderedDict"),
    ],
)
def test_what_is_no_json_built_in_is_refused_by_its_place_and_type(value: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"^options\.blocks\[1\]: .* is a {kind}, which is no JSON built-in$"):
        key_of({"options": {"blocks": [0, value]}})


def test_a_key_that_is_no_text_is_refused_because_json_would_change_it() -> None:
    with pytest.raises(TypeError, match=r"^options: the key 1 is no str"):
        key_of({"options": {1: "a"}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_without_a_json_form_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^options\.ratio: .* has no JSON form$"):
        key_of({"options": {"ratio": value}})


# Files and folders


def test_a_file_is_digested_with_its_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"weights")
    assert digest_file(tmp_path / "a") == FileDigest(hashlib.sha256(b"weights").hexdigest(), 7)


def test_a_folder_is_digested_file_by_file_in_the_order_of_posix_names(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a.txt", "empty"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name == "empty" else name)
    assert [(name, file.size) for name, file in digest_folder(tmp_path).items()] == [
        ("a.txt", 5),
        ("a/z", 3),
        ("b", 1),
        ("empty", 0),
    ]


@pytest.mark.parametrize("kind", ["symlink to a file", "symlink to a folder", "dangling symlink", "pipe"])
def test_what_is_no_plain_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    odd = tmp_path / "folder" / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(tmp_path / kind.rpartition(" ")[2] if kind != "dangling symlink" else tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"^folder/odd is a symlink or a special file"):
        members(tmp_path)


@given(st.permutations(["a", "b/c", "d"]))
def test_one_digest_stands_for_the_files_in_any_order(names: list[str]) -> None:
    files = {name: FileDigest("0" * 64, len(name)) for name in names}
    assert digest_of(files) == digest_of(dict(sorted(files.items())))


@pytest.mark.parametrize(
    "changed", [{}, {"b": FileDigest("0" * 64, 1)}, {"a": FileDigest("1" * 64, 1)}, {"a": FileDigest("0" * 64, 2)}]
)
def test_another_name_content_or_size_gives_another_digest(changed: dict[str, FileDigest]) -> None:
    assert digest_of(changed) != digest_of({"a": FileDigest("0" * 64, 1)})


# Seals


@given(materials.filter(lambda body: "seal" not in body))
def test_what_was_sealed_comes_back(body: dict[str, Any]) -> None:
    assert key_of(unseal(seal(body), "it")) == key_of(body)


@given(st.data())
def test_no_byte_of_a_sealed_value_can_change_unnoticed(data: st.DataObject) -> None:
    content = bytearray(seal({"digest": "abc", "size": 12, "ratio": 0.5}))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        kept = unseal(bytes(content), "it")
    except ArtifactError:
        return
    # White space is the only thing that may change without changing what is said.
    assert kept == {"digest": "abc", "size": 12, "ratio": 0.5}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"seal": NaN}'])
def test_what_was_never_sealed_is_damaged(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"^entry\.json (is damaged|was edited)$"):
        unseal(content, "entry.json")


# Differences


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"options": {"block": 16}}, {"options": {"block": 32}}, ["options.block: 16 -> 32"]),
        ({"tools": {"onnx": "1.23.2"}}, {"tools": {"onnx": "1.24.0"}}, ["tools.onnx: 1.23.2 -> 1.24.0"]),
        ({"a": {"b": None}}, {"a": {}}, ["a.b: removed null"]),
        ({}, {"a": {"b": 1}}, ['a: added {"b":1}']),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, ["a[1]: 2 -> 3", "a[2]: added 4"]),
        ({"a": 16}, {"a": "16"}, ['a: 16 -> "16"']),
        ({"a": True}, {"a": 1}, ["a: true -> 1"]),
        ({"a": ""}, {"a": "x\ny"}, [r'a: "" -> "x\ny"']),
        ({"a b": {"": {"c\n": 1}}}, {"a b": {"": {"c\n": 2}}}, [r'a b."""."c\n": 1 -> 2'.replace('"""', '""')]),
        ({"in": "a" * 64}, {"in": "b" * 64}, ["in: aaaaaaaaaaaa… -> bbbbbbbbbbbb…"]),
        ({"in": "a" * 64}, {"in": "a" * 63 + "b"}, [f'in: "{"a" * 64}" -> "{"a" * 63}b"']),
        ({"z": 1, "a": 1}, {"z": 2, "a": 2}, ["a: 1 -> 2", "z: 1 -> 2"]),
    ],
)
def test_a_difference_is_told_by_its_dotted_path(old: Any, new: Any, lines: list[str]) -> None:
    assert difference(old, new) == lines


@given(materials, materials)
@example({"a": True}, {"a": 1})
@example({"a": {}}, {"a": []})
@example({"a": {}}, {})
@example({"a": None}, {})
def test_there_is_a_difference_exactly_when_the_keys_differ(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert bool(difference(old, new)) == (key_of(old) != key_of(new))


@given(materials, materials)
def test_each_difference_is_one_line_that_could_be_printed(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert all(line.isprintable() for line in difference(old, new))


@given(materials, materials)
def test_both_directions_tell_as_many_differences(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert len(difference(old, new)) == len(difference(new, old))


@given(materials, st.text(min_size=1, max_size=5), leaves)
def test_an_added_key_is_the_only_difference_told(material: dict[str, Any], name: str, value: Any) -> None:
    less = {other: inner for other, inner in material.items() if other != name}
    (line,) = difference(less, {**less, name: value})
    assert ": added " in line
