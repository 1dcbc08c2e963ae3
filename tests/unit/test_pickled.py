"""pickled.py and opcodes.py: files that torch saved (references/pickled.json), damaged ones, and malicious ones."""

from __future__ import annotations

import base64
import json
import os
import pickle
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import small_models
import stand_ins
from modelkit.errors import StageError
from modelkit.exporters import direct
from modelkit.pickled import Checkpoint
from modelkit.weights import Weights
from stand_ins import pickles
from stand_ins import t5 as t5_models
from stand_ins import xlm_roberta as xlm_roberta_models

RECORDED = json.loads((Path(__file__).parents[1] / "references" / "pickled.json").read_text())
FILES = {form: base64.b64decode(content) for form, content in RECORDED["files"].items()}
MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
FLOATS = [name for name in RECORDED["held"] if name != "position_ids"]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "pytorch_model.bin"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(StageError) as caught:
        Checkpoint(path)
    return str(caught.value)


def one(folder: Path, *view: Any, **more: Any) -> Path:
    """A file with the tensor `a`, a view of the twelve numbers of `MATRIX`."""
    opcodes = pickles.tensor("0", 12, *view, **more)
    return pickles.zipped(folder / "pytorch_model.bin", pickles.dictionary({"a": opcodes}), {"0": MATRIX.tobytes()})


# What torch wrote


@pytest.mark.parametrize("form", FILES)
def test_the_tensors_of_a_file_have_their_names_shapes_and_types(form: str, tmp_path: Path) -> None:
    found = Checkpoint(written(tmp_path, FILES[form]))
    assert {name: list(found.form(name)[1]) for name in found.names()} == {
        name: held["shape"] for name, held in RECORDED["held"].items()
    }
    of = {"float16": "F16", "bfloat16": "BF16", "float64": "F64", "position_ids": "I64"}
    assert {name: found.form(name)[0] for name in found.names()} == {
        name: of.get(name, "F32") for name in RECORDED["held"]
    }


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("name", FLOATS)
def test_a_tensor_has_the_values_that_torch_saved(form: str, name: str, tmp_path: Path) -> None:
    held = RECORDED["held"][name]
    found = Weights(written(tmp_path, FILES[form]).parent).read(name, tuple(held["shape"]))
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(found, np.array(held["values"], np.float32).reshape(held["shape"]))


def test_a_file_that_a_gpu_saved_is_read(tmp_path: Path) -> None:
    path = one(tmp_path, (3, 4), (4, 1))
    with zipfile.ZipFile(path) as archive:
        data = archive.read("archive/data.pkl").replace(b"ctorch\nFloat", b"ctorch.cuda\nFloat")
    np.testing.assert_array_equal(Checkpoint(pickles.zipped(path, data, {"0": MATRIX.tobytes()})).read("a"), MATRIX)


# Through `Weights`


def test_integers_are_refused_as_in_safetensors(tmp_path: Path) -> None:
    weights = Weights(written(tmp_path, FILES["zip"]).parent)
    with pytest.raises(StageError, match=r"pytorch_model\.bin: tensor 'position_ids' is stored as I64, expected F32"):
        weights.read("position_ids", (4,))


def test_another_shape_is_told_as_in_safetensors(tmp_path: Path) -> None:
    one(tmp_path, (3, 4), (4, 1))
    with pytest.raises(StageError, match=r"pytorch_model\.bin: tensor 'a' has shape \[3, 4\], config\.json asks for"):
        Weights(tmp_path).read("a", (4, 3))


def test_a_missing_tensor_is_told_as_in_safetensors(tmp_path: Path) -> None:
    one(tmp_path, (3, 4), (4, 1))
    with pytest.raises(StageError, match=r"tensor 'b' is missing from pytorch_model\.bin"):
        Weights(tmp_path).read("b", (4, 3))


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    written(tmp_path, b"not even looked at")
    save_file({"a": MATRIX + 1}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(Weights(tmp_path).read("a", (3, 4)), MATRIX + 1)


def test_the_tensors_of_all_shards_are_found(tmp_path: Path) -> None:
    for number in (1, 2):
        pickles.save({f"layer.{number}": MATRIX * number}, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    weights = Weights(tmp_path)
    for number in (1, 2):
        np.testing.assert_array_equal(weights.read(f"layer.{number}", (3, 4)), MATRIX * number)
    with pytest.raises(StageError, match=r"from pytorch_model-00001-of-00002\.bin, pytorch_model-00002-of-00002\.bin"):
        weights.read("layer.3", (3, 4))


def test_memory_holds_one_tensor_and_not_the_file(tmp_path: Path) -> None:
    large = np.ones((512, 1024), np.float32)
    pickles.save({f"layer.{number}": large * number for number in range(8)}, tmp_path / "pytorch_model.bin")
    tracemalloc.start()
    weights = Weights(tmp_path)
    for number in range(8):
        assert weights.read(f"layer.{number}", large.shape)[-1, -1] == number
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * large.nbytes


# The same model


def converted(source: Path, into: Path, task: str) -> dict[str, str]:
    into.mkdir()
    manifest: Any = SimpleNamespace(task=SimpleNamespace(kind=task, options=None))
    direct.export(manifest, source, into, direct.Options())
    return small_models.digests(into)


def test_a_t5_gives_the_same_bytes_from_a_pickle(tmp_path: Path) -> None:
    safe, pickled = t5_models.t5(tmp_path / "safe"), t5_models.as_published(tmp_path / "pickled")
    task = "text2text-generation"
    assert converted(pickled, tmp_path / "b", task) == converted(safe, tmp_path / "a", task)


def test_an_xlm_roberta_gives_the_same_bytes_from_a_pickle(tmp_path: Path) -> None:
    safe = xlm_roberta_models.xlm_roberta(tmp_path / "safe")
    pickled = xlm_roberta_models.as_published(tmp_path / "pickled")
    expected, found = (small_models.exported(source, tmp_path / f"{source.name} made") for source in (safe, pickled))
    assert small_models.digests(found) == small_models.digests(expected)


# Views


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_view_is_what_numpy_makes_of_it(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 3), max_size=3))
    strides = [data.draw(st.integers(0, 5)) for _ in shape]
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    offset = data.draw(st.integers(0, 14))
    with tempfile.TemporaryDirectory() as folder:
        path = one(Path(folder), shape, strides, offset)
        if offset + last >= 12:
            assert "a tensor that ends behind its storage of 12 elements" in refusal(path)
            return
        expected = np.lib.stride_tricks.as_strided(MATRIX.ravel()[offset:], shape, [4 * stride for stride in strides])
        np.testing.assert_array_equal(Checkpoint(path).read("a"), expected)


@pytest.mark.parametrize("view", [((3,), (1, 1)), ((-1,), (1,)), ((3,), (-1,)), ((2**70,), (1,)), ((3,), (2**70,))])
def test_a_view_that_no_storage_has_is_refused(view: Any, tmp_path: Path) -> None:
    assert "pytorch_model.bin is no complete file of torch.save" in refusal(one(tmp_path, *view))


def test_the_stride_of_a_single_element_may_be_any_number(tmp_path: Path) -> None:
    assert Checkpoint(one(tmp_path, (1, 2), (2**70, 1), 5)).read("a").tolist() == [[5, 6]]


# What is malicious


class Planted:
    """Pickles to a call of `function` with `arguments`, as an attacker writes it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def planted(touched: Path) -> dict[str, Any]:
    """How a pickle could get a file written."""
    writes = f"open({str(touched)!r}, 'w').close()"
    return {
        "the system's shell": Planted(os.system, f"touch {touched}"),
        "exec": Planted(exec, writes),
        "eval": Planted(eval, writes),
        "a method": Planted(Path.write_text, touched, ""),
        "nested in a list": [{"a": [Planted(exec, writes)]}],
        "an argument of a call": Planted(len, [Planted(exec, writes)]),
    }


PLANTED = list(planted(Path("x")))


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_would_run_in_pythons_own_unpickler(kind: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    pickle.loads(pickle.dumps(planted(touched)[kind]))  # noqa: S301  the tests' own, and harmless
    assert touched.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("form", ["zip", "before 1.6", "bare"])
def test_what_is_planted_never_runs(kind: str, protocol: int, form: str, tmp_path: Path) -> None:
    touched, path = tmp_path / "touched", tmp_path / "pytorch_model.bin"
    data = pickle.dumps({"weight": planted(touched)[kind]}, protocol=protocol)
    if form == "zip":
        pickles.zipped(path, data, {})
    elif form == "before 1.6":
        pickles.legacy(path, data, {})
    else:
        path.write_bytes(data)
    assert "asks to run" in refusal(path) or "uses the pickle opcode" in refusal(path)
    assert not touched.exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "name"), [(eval, "builtins.eval"), (exec, "builtins.exec"), (os.system, f"{os.name}.system")]
)
def test_the_refusal_names_what_was_asked_for(function: Any, name: str, protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps({"a": Planted(function, "1")}, protocol=protocol)
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {}))
    # Protocol 2 keeps the names of Python 2.
    name = name.replace("builtins", "__builtin__") if protocol == 2 else name
    assert told.startswith(f"pytorch_model.bin asks to run {name}, which no dictionary of tensors needs; nothing of it")


NEIGHBOURS = [
    *("torch.storage._load_from_bytes", "torch._utils._rebuild_tensor_v3", "torch.cuda.OrderedDict", "torch.__class__"),
    *("torch.serialization.load", "torch.load", "torch.hub.load", "collections.namedtuple", "numpy.load"),
]


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour_of_an_allowed_name_is_refused(name: str, tmp_path: Path) -> None:
    line = "\n".join(name.rsplit(".", 1)).encode()
    data = pickles.dictionary({"a": b"c" + line + b"\n)R"})
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {}))
    assert f"asks to run {name}," in told


@pytest.mark.parametrize(
    ("opcodes", "told"),
    [
        (b"(Vecho\nios\nsystem\n", "uses the pickle opcode UNICODE"),
        (b"(ios\nsystem\n", "uses the pickle opcode INST"),
        (b"(cos\nsystem\no", "asks to run os.system"),
        (b"(ccollections\nOrderedDict\no", "uses the pickle opcode OBJ"),
        (b"ccollections\nOrderedDict\n)\x81", "uses the pickle opcode NEWOBJ"),
        (b"ccollections\nOrderedDict\n)}\x92", "uses the pickle opcode NEWOBJ_EX"),
        (b"\x82\x01", "uses the pickle opcode EXT1"),
        (b"Pname\n", "uses the pickle opcode PERSID"),
    ],
)
def test_other_ways_to_call_are_refused_by_name(opcodes: bytes, told: str, tmp_path: Path) -> None:
    data = pickles.dictionary({"a": opcodes})
    assert told in refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {}))


def test_attributes_are_given_to_no_function(tmp_path: Path) -> None:
    data = pickles.dictionary({"a": b"ctorch._utils\n_rebuild_tensor_v2\n}b"})
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {}))
    assert "gives attributes to what is no dictionary" in told


def test_an_allowed_name_called_otherwise_is_refused(tmp_path: Path) -> None:
    data = pickles.dictionary({"a": b"ccollections\nOrderedDict\n(" + pickles.text("x") + b"tR"})
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {}))
    assert "asks to run collections.OrderedDict in a way that torch does not" in told


def test_a_name_that_doubles_a_hundred_times_is_not_printed(tmp_path: Path) -> None:
    doubled = b"".join(b"q\x01h\x01\x86" for _ in range(100))
    data = pickles.dictionary({"a": b")" + doubled + pickles.text("system") + b"\x93"})
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {}))
    assert "a name that is no text" in told


def test_a_memo_of_any_number_costs_nothing(tmp_path: Path) -> None:
    data = pickles.dictionary({"a": pickles.tensor("0", 12, (12,), (1,)) + b"r\xff\xff\xff\xff"})
    found = Checkpoint(pickles.zipped(tmp_path / "pytorch_model.bin", data, {"0": MATRIX.tobytes()}))
    assert found.form("a") == ("F32", (12,))


# What is no dictionary of tensors


def test_a_training_run_is_refused_with_the_name_of_what_is_no_tensor(tmp_path: Path) -> None:
    data = pickles.dictionary({"epoch": pickles.number(3)})
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {}))
    assert told.startswith("pytorch_model.bin holds 'epoch', which is no tensor; save the model's state_dict() alone")


def test_something_else_than_a_dictionary_is_refused(tmp_path: Path) -> None:
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", pickle.dumps([1], protocol=2), {}))
    assert told == "pytorch_model.bin holds no dictionary of tensors; save the model's state_dict()"


def test_big_endian_bytes_are_refused(tmp_path: Path) -> None:
    path = one(tmp_path, (3, 4), (4, 1))
    path.write_bytes(path.read_bytes().replace(b"little", b"big\0\0\0"))
    assert "no complete file of torch.save" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickles.dictionary({}))
        archive.writestr("archive/byteorder", b"big")
    assert "has its bytes in big-endian order" in refusal(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickles.dictionary({}))
    assert "it is compressed" in refusal(tmp_path / "pytorch_model.bin")


def test_a_pointer_to_large_file_storage_is_refused(tmp_path: Path) -> None:
    told = refusal(written(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"))
    assert "pytorch_model.bin is no complete file of torch.save" in told
    assert told.endswith("fetch the source again")


# What is damaged


def test_a_storage_with_another_byte_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = one(tmp_path, (3, 4), (4, 1))
    whole = path.read_bytes()
    at = whole.index(MATRIX.tobytes())
    path.write_bytes(whole[: at + 5] + b"\xaa" + whole[at + 6 :])
    with pytest.raises(StageError, match=r"pytorch_model\.bin: the bytes of a tensor are missing or damaged; fetch"):
        Checkpoint(path).read("a")


def test_a_storage_that_the_archive_lacks_is_told(tmp_path: Path) -> None:
    data = pickles.dictionary({"a": pickles.tensor("1", 12, (12,), (1,))})
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {"0": MATRIX.tobytes()}))
    assert told.startswith("pytorch_model.bin ends before tensor 'a'; it was cut short")


def test_a_storage_shorter_than_it_says_is_told(tmp_path: Path) -> None:
    data = pickles.dictionary({"a": pickles.tensor("0", 13, (13,), (1,))})
    told = refusal(pickles.zipped(tmp_path / "pytorch_model.bin", data, {"0": MATRIX.tobytes()}))
    assert told.startswith("pytorch_model.bin ends before tensor 'a'")


def read_all(content: bytes) -> str:
    """Everything that is done with a file: what was told, or `read`. Other errors come out and fail the test."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = Checkpoint(written(Path(folder), content))
            for name in found.names():
                if found.form(name)[0] in {"F32", "F16", "BF16", "F64"} and np.prod(found.form(name)[1]) < 10**6:
                    found.read(name)
        except StageError as error:
            return str(error)
        return "read"


@pytest.mark.parametrize("form", FILES)
@given(share=st.floats(0, 0.999))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_short_anywhere_is_told(form: str, share: float) -> None:
    cut = FILES[form][: int(len(FILES[form]) * share)]
    with tempfile.TemporaryDirectory() as folder:
        refusal(written(Path(folder), cut))


@pytest.mark.parametrize("form", FILES)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damage_anywhere_is_nothing_but_an_error_of_ours(form: str, data: st.DataObject) -> None:
    content = bytearray(FILES[form])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 4))] = data.draw(st.binary(max_size=6))
    assert "\n" not in read_all(bytes(content))


@given(opcodes=st.lists(st.sampled_from([bytes([n]) for n in range(256)] + [
    pickles.tensor("0", 12, (12,), (1,)), pickles.text("a"), pickles.number(2**64), pickles.ORDERED_DICT,
    b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nFloatStorage\n", b"(", b"t", b"u", b"}", b"R", b"Q", b"b",
    b"\x85",
])))  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_opcodes_in_any_order_are_nothing_but_an_error_of_ours(opcodes: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        pickles.zipped(path, b"".join(opcodes) + b".", {"0": MATRIX.tobytes()})
        assert "\n" not in read_all(path.read_bytes())


@given(content=st.binary(max_size=200))
def test_any_bytes_at_all_are_nothing_but_an_error_of_ours(content: bytes) -> None:
    for start in (b"", b"PK"):
        assert "pytorch_model.bin" in read_all(start + content)


def test_a_bert_of_the_older_form_is_read(tmp_path: Path) -> None:
    arrays = stand_ins.bert_weights(stand_ins.BERT)
    items = {name: pickles.tensor(name, a.size, a.shape, [s // 4 for s in a.strides]) for name, a in arrays.items()}
    storages = {name: (array.size, array.tobytes()) for name, array in sorted(arrays.items())}
    found = Checkpoint(pickles.legacy(tmp_path / "pytorch_model.bin", pickles.dictionary(items), storages))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.read(name), array)
