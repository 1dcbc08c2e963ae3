from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelkit.digests import digest_file, digest_folder, digest_of, key_of, seal
from modelkit.errors import StageError
from modelkit.store import Store
from modelkit.vocabulary import Artifact, FileDigest, Stage

FILES = {"model.onnx": b"graph and weights", "onnx/tokenizer.json": b"{}"}


def stage_of(name: str = "convert", **options: Any) -> Stage:
    material = {"stage": name, "options": options}
    return Stage(name, key_of(material), material)


def writer(files: dict[str, bytes] | None = None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, content in (FILES if files is None else files).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    return write


def unwanted(folder: Path) -> None:
    raise AssertionError("made again although it was there")


def entry_of(artifact: Artifact) -> Path:
    return artifact.folder.parent / "entry.json"


def identity(path: Path) -> tuple[int, int]:
    """Changes when the file is replaced or written to, and not when it is read."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def traces(root: Path) -> list[str]:
    """Everything in the store but its lock files, which stay."""
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and path.parent != root / "locks"
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# Where it lives


def test_the_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELKIT_STORE", str(tmp_path / "elsewhere"))
    assert Store().root == tmp_path / "elsewhere"


def test_a_tilde_in_the_environment_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELKIT_STORE", "~/models")
    assert Store().root == tmp_path / "models"


def test_the_root_is_the_users_cache_folder_when_nobody_named_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELKIT_STORE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Store().root == tmp_path / "modelkit"


def test_a_relative_root_stays_where_it_was_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("store"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert store.make(stage_of(), writer()).folder.is_relative_to(tmp_path / "store")


def test_reading_creates_nothing(store: Store) -> None:
    key = stage_of().key
    assert (store.find(key), store.get_record(key), store.last("x/y"), store.note(key), [*store.entries()]) == (
        None,
        None,
        None,
        None,
        [],
    )
    assert not store.root.exists()


def test_importing_the_store_imports_nothing_slow() -> None:
    code = "import sys, modelkit.store; print({'filelock', 'platformdirs', 'numpy', 'yaml'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# Making and finding


def test_what_a_stage_writes_is_kept_with_its_digests(store: Store) -> None:
    stage = stage_of()
    made = store.make(stage, writer())
    assert {name: (made.folder / name).read_bytes() for name in made.files} == FILES
    assert made.files == digest_folder(made.folder)
    assert (made.digest, made.chain, made.reused) == (digest_of(made.files), (stage,), False)


def test_an_entry_lies_under_its_key(store: Store) -> None:
    key = stage_of().key
    store.make(stage_of(), writer())
    place = f"objects/{key[:2]}/{key}"
    assert traces(store.root) == [
        f"{place}/entry.json",
        f"{place}/files/model.onnx",
        f"{place}/files/onnx/tokenizer.json",
    ]


def test_the_same_stage_is_not_made_twice(store: Store) -> None:
    made = store.make(stage_of(), writer())
    again = store.make(stage_of(), unwanted)
    assert again.reused
    assert (again.folder, again.digest, again.files, again.chain) == (made.folder, made.digest, made.files, made.chain)


def test_another_object_on_the_same_folder_finds_the_entry(store: Store) -> None:
    made = store.make(stage_of(), writer())
    assert Store(store.root).find(stage_of().key) == made


def test_other_options_are_another_entry(store: Store) -> None:
    store.make(stage_of(block=16), writer())
    assert not store.make(stage_of(block=32), writer({"model.onnx": b"other"})).reused


def test_the_folder_a_stage_writes_to_is_empty_and_on_the_stores_file_system(store: Store) -> None:
    seen = []

    def write(folder: Path) -> None:
        seen.append((list(folder.iterdir()), folder.is_relative_to(store.root)))
        writer()(folder)

    store.make(stage_of(), write)
    assert seen == [([], True)]


def test_what_a_stage_wrote_is_moved_into_place_in_one_step(store: Store) -> None:
    seen: list[int] = []

    def write(folder: Path) -> None:
        seen.append(folder.stat().st_ino)
        writer()(folder)

    assert [store.make(stage_of(), write).folder.stat().st_ino] == seen


def test_the_same_stage_gives_the_same_entry_in_any_store(tmp_path: Path) -> None:
    first, second = (Store(tmp_path / name).make(stage_of(), writer(), note={"recipe": "x"}) for name in "ab")
    assert entry_of(first).read_bytes() == entry_of(second).read_bytes()


def test_an_entry_says_what_it_is_without_a_clock(store: Store) -> None:
    stage = stage_of(block=16)
    made = store.make(stage, writer(), note={"seconds saved": 3})
    entry = json.loads(entry_of(made).read_text())
    assert entry.keys() == {"format", "stage", "key", "material", "files", "digest", "note", "seal"}
    assert (entry["stage"], entry["key"], entry["material"]) == (stage.name, stage.key, stage.material)
    assert entry["files"]["model.onnx"] == {"sha256": made.files["model.onnx"].sha256, "size": 17}


def test_a_note_is_kept_with_the_entry(store: Store) -> None:
    store.make(stage_of(), writer(), note={"tensors": 12})
    assert store.note(stage_of().key) == {"tensors": 12}


def test_a_note_that_is_no_json_is_refused_before_the_stage_runs(store: Store) -> None:
    with pytest.raises(TypeError, match="folder"):
        store.make(stage_of(), unwanted, note={"folder": Path()})


def test_a_stage_may_make_another_stage_while_it_writes(store: Store) -> None:
    def outer(folder: Path) -> None:
        (folder / "half").touch()
        inner = store.make(stage_of("download"), writer())
        (folder / "model.onnx").write_bytes((inner.folder / "model.onnx").read_bytes())

    assert set(store.make(stage_of("convert"), outer).files) == {"half", "model.onnx"}
    assert len(list(store.entries())) == 2


def test_all_entries_are_listed(store: Store) -> None:
    made = {store.make(stage_of(block=block), writer()).digest for block in (16, 32)}
    listed = list(store.entries())
    assert {artifact.chain[0].key for artifact in listed} == {stage_of(block=16).key, stage_of(block=32).key}
    assert {artifact.digest for artifact in listed} == made


def test_an_entry_that_cannot_be_read_is_not_listed(store: Store) -> None:
    entry_of(store.make(stage_of(block=16), writer())).unlink()
    store.make(stage_of(block=32), writer())
    assert [artifact.chain[0] for artifact in store.entries()] == [stage_of(block=32)]


@pytest.mark.parametrize("key", ["", "abc", "../" * 20 + "etc/passwd", "A" * 64, "a" * 63 + "\n", "a" * 64 + "\n"])
def test_a_key_that_is_no_sha256_is_refused(store: Store, key: str) -> None:
    for ask in (store.find, store.get_record, store.note, lambda key: store.put_record(key, {})):
        with pytest.raises(ValueError, match="is no key"):
            ask(key)


def test_a_key_that_is_not_that_of_the_material_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="stage convert: its key is not the key of its material"):
        store.make(Stage("convert", "0" * 64, {}), unwanted)


def test_a_store_crosses_processes(store: Store) -> None:
    made = store.make(stage_of(), writer())
    assert pickle.loads(pickle.dumps(store)).find(stage_of().key) == made  # noqa: S301  our own bytes


# Stages that fail


def test_a_stage_that_raises_leaves_no_trace(store: Store) -> None:
    def write(folder: Path) -> None:
        writer()(folder)
        raise RuntimeError("the exporter gave up")

    with pytest.raises(RuntimeError, match="the exporter gave up"):
        store.make(stage_of(), write)
    assert traces(store.root) == []
    assert list((store.root / "building").iterdir()) == []


def test_an_interrupted_stage_leaves_no_trace(store: Store) -> None:
    def write(folder: Path) -> None:
        writer()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make(stage_of(), write)
    assert traces(store.root) == []


def test_after_a_failure_the_stage_can_be_made(store: Store) -> None:
    with pytest.raises(AssertionError):
        store.make(stage_of(), unwanted)
    assert not store.make(stage_of(), writer()).reused


@pytest.mark.parametrize("write", [writer({}), lambda folder: (folder / "empty").mkdir()])
def test_a_stage_that_writes_no_file_has_failed(store: Store, write: Callable[[Path], None]) -> None:
    with pytest.raises(StageError, match=r"^wrote no files$"):
        store.make(stage_of(), write)
    assert traces(store.root) == []


def test_a_stage_that_leaves_a_symlink_has_failed(store: Store) -> None:
    def write(folder: Path) -> None:
        writer()(folder)
        (folder / "weights").symlink_to("/etc/hostname")

    with pytest.raises(StageError, match=r"^weights is a symlink"):
        store.make(stage_of(), write)
    assert traces(store.root) == []


def test_an_error_of_the_stage_about_its_own_files_is_not_blamed_on_the_store(store: Store) -> None:
    def write(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/weights.safetensors")

    with pytest.raises(PermissionError, match=r"weights\.safetensors"):
        store.make(stage_of(), write)


# Forced rebuilds


def test_a_forced_rebuild_with_the_same_bytes_keeps_the_entry(store: Store) -> None:
    made = store.make(stage_of(), writer())
    before = identity(made.folder / "model.onnx")
    calls: list[Path] = []

    def write(folder: Path) -> None:
        calls.append(folder)
        writer()(folder)

    again = store.make(stage_of(), write, force=True)
    assert (len(calls), again.reused, again.folder) == (1, False, made.folder)
    assert identity(made.folder / "model.onnx") == before


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({**FILES, "model.onnx": b"other"}, r"model\.onnx was [0-9a-f]{12}…, now [0-9a-f]{12}…"),
        ({"model.onnx": FILES["model.onnx"]}, r"onnx/tokenizer\.json was [0-9a-f]{12}…, now missing"),
        ({**FILES, "added.json": b""}, r"added\.json was missing, now e3b0c44298fc…"),
    ],
)
def test_a_forced_rebuild_with_other_bytes_is_refused(store: Store, files: dict[str, bytes], told: str) -> None:
    made = store.make(stage_of(), writer())
    with pytest.raises(StageError, match=f"^not reproducible: {told}$"):
        store.make(stage_of(), writer(files), force=True)
    assert Store(store.root).find(stage_of().key) == made


def test_force_makes_what_is_not_there(store: Store) -> None:
    assert store.make(stage_of(), writer(), force=True) == store.find(stage_of().key)


# Damage


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def turn_into_symlink(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def forge_digest(artifact: Artifact) -> None:
    edit(entry_of(artifact), lambda content: content.replace(artifact.digest.encode(), b"0" * 64))


def other_format(artifact: Artifact) -> None:
    entry = json.loads(entry_of(artifact).read_bytes())
    del entry["seal"]
    entry_of(artifact).write_bytes(seal({**entry, "format": 0}))


DAMAGE: dict[str, tuple[Callable[[Artifact], object], str]] = {
    "a flipped bit": (
        lambda it: edit(it.folder / "model.onnx", lambda content: bytes([content[0] ^ 1]) + content[1:]),
        "files/model.onnx has other bytes than it was stored with",
    ),
    "a truncated file": (
        lambda it: edit(it.folder / "model.onnx", lambda content: content[:-1]),
        "files/model.onnx has other bytes than it was stored with",
    ),
    "an emptied file": (
        lambda it: edit(it.folder / "model.onnx", lambda content: b""),
        "files/model.onnx has other bytes than it was stored with",
    ),
    "an added file": (lambda it: (it.folder / "notes.txt").touch(), "files/notes.txt was added"),
    "an added file beside": (lambda it: (it.folder.parent / "x").touch(), "x was added"),
    "a removed file": (lambda it: (it.folder / "model.onnx").unlink(), "files/model.onnx is missing"),
    "a renamed file": (lambda it: (it.folder / "model.onnx").rename(it.folder / "a"), "files/a was added"),
    "a file turned symlink": (
        lambda it: turn_into_symlink(it.folder / "model.onnx"),
        "files/model.onnx is a symlink or a special file; only plain files can be kept",
    ),
    "no entry.json": (lambda it: entry_of(it).unlink(), "incomplete"),
    "a broken entry.json": (lambda it: edit(entry_of(it), lambda content: content[:-9]), "entry.json is damaged"),
    "an empty entry.json": (lambda it: edit(entry_of(it), lambda content: b""), "entry.json is damaged"),
    "another digest in entry.json": (forge_digest, "entry.json was edited"),
    "another note in entry.json": (
        lambda it: edit(entry_of(it), lambda content: content.replace(b'"note": {}', b'"note": {"x": 1}')),
        "entry.json was edited",
    ),
    "another format": (other_format, "entry.json is of another format or key"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_entry_is_dropped_and_made_again(store: Store, what: str) -> None:
    damage, told = DAMAGE[what]
    made = store.make(stage_of(), writer())
    damage(made)
    assert store.find(stage_of().key) is None
    assert store.dropped == [f"dropped {stage_of().key[:12]}…: {told}"]
    assert traces(store.root) == []
    again = store.make(stage_of(), writer())
    assert (again.reused, again.files) == (False, made.files)
    assert Store(store.root).find(stage_of().key) == again


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_entry_is_replaced_by_the_next_who_wants_it(store: Store, what: str) -> None:
    made = store.make(stage_of(), writer())
    DAMAGE[what][0](made)
    other = Store(store.root)
    again = other.make(stage_of(), writer())
    assert (again.reused, again.files, len(other.dropped)) == (False, made.files, 1)


def test_a_damaged_entry_is_no_witness_against_a_forced_rebuild(store: Store) -> None:
    made = store.make(stage_of(), writer())
    edit(made.folder / "model.onnx", lambda content: b"spoilt")
    assert store.make(stage_of(), writer(), force=True).files == made.files


def test_an_edit_that_keeps_size_and_time_is_noticed_by_the_same_object(store: Store) -> None:
    made = store.make(stage_of(), writer())
    path = made.folder / "model.onnx"
    before = path.stat()
    edit(path, lambda content: content[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find(stage_of().key) is None


def test_an_entry_in_the_place_of_another_key_is_dropped(store: Store) -> None:
    made = store.make(stage_of(block=16), writer())
    key = stage_of(block=32).key
    place = store.root / "objects" / key[:2] / key
    place.parent.mkdir(exist_ok=True)
    made.folder.parent.rename(place)
    assert store.find(key) is None


def test_a_file_in_the_place_of_an_entry_is_dropped(store: Store) -> None:
    key = stage_of().key
    place = store.root / "objects" / key[:2] / key
    place.parent.mkdir(parents=True)
    place.write_text("not a folder")
    assert not store.make(stage_of(), writer()).reused
    assert store.dropped == [f"dropped {key[:12]}…: incomplete"]


def test_without_verifying_damaged_files_are_not_noticed(store: Store) -> None:
    made = store.make(stage_of(), writer())
    edit(made.folder / "model.onnx", lambda content: b"spoilt")
    assert store.find(stage_of().key, verify=False) == made


def test_what_was_verified_once_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.make(stage_of(), writer())
    other = Store(store.root)
    read: list[Path] = []

    def counted(path: Path) -> FileDigest:
        read.append(path)
        return digest_file(path)

    monkeypatch.setattr("modelkit.store.digest_file", counted)
    for _ in range(3):
        other.find(stage_of().key)
        store.find(stage_of().key)
    assert len(read) == len(FILES)


def test_what_was_touched_is_read_again_and_found_sound(store: Store) -> None:
    made = store.make(stage_of(), writer())
    os.utime(made.folder / "model.onnx")
    assert store.find(stage_of().key) == made
    assert store.dropped == []


# Records


KEY = stage_of("check").key


def test_a_record_comes_back(store: Store) -> None:
    value = {"outcome": "passed", "measured": {"cosine": 0.1 + 0.2, "worst": [1, None, True]}}
    store.put_record(KEY, value)
    assert Store(store.root).get_record(KEY) == value
    assert traces(store.root) == [f"records/{KEY[:2]}/{KEY}.json"]


def test_a_later_record_replaces_an_earlier_one(store: Store) -> None:
    store.put_record(KEY, {"n": 1})
    store.put_record(KEY, {"n": 2})
    assert store.get_record(KEY) == {"n": 2}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.replace(b"failed", b"passed"), "it was edited"),
        (lambda content: content[:20], "it is damaged"),
        (lambda content: b"", "it is damaged"),
        (lambda content: seal({"key": "0" * 64, "value": {}}), "it belongs to another key"),
    ],
)
def test_an_edited_record_is_dropped(store: Store, change: Callable[[bytes], bytes], told: str) -> None:
    store.put_record(KEY, {"outcome": "failed"})
    edit(store.root / "records" / KEY[:2] / f"{KEY}.json", change)
    assert store.get_record(KEY) is None
    assert store.dropped == [f"dropped record {KEY[:12]}…: {told}"]
    assert traces(store.root) == []


@pytest.mark.parametrize(("value", "error"), [({"x": (1,)}, TypeError), ({"x": float("nan")}, ValueError)])
def test_a_record_that_is_no_json_is_refused(store: Store, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^value\.x"):
        store.put_record(KEY, value)
    assert not store.root.exists()


def test_a_record_and_an_entry_may_share_a_key_and_be_written_at_once(store: Store) -> None:
    def write(folder: Path) -> None:
        store.put_record(stage_of().key, {"seen": "while writing"})
        writer()(folder)

    store.make(stage_of(), write)
    assert store.get_record(stage_of().key) == {"seen": "while writing"}


# The last stage of a label


def test_the_last_stage_of_a_label_is_remembered(store: Store) -> None:
    store.remember("minilm-l6/int8/quantized", stage_of(block=16))
    store.remember("minilm-l6/int8/quantized", stage_of(block=32))
    assert Store(store.root).last("minilm-l6/int8/quantized") == stage_of(block=32)
    assert traces(store.root) == ["last/minilm-l6/int8/quantized.json"]


def test_labels_do_not_disturb_each_other(store: Store) -> None:
    store.remember("a/int8", stage_of(block=16))
    assert store.last("a/int4") is None


def test_remembering_the_same_again_writes_nothing(store: Store) -> None:
    store.remember("a/int8", stage_of())
    before = identity(store.root / "last/a/int8.json")
    store.remember("a/int8", stage_of())
    assert identity(store.root / "last/a/int8.json") == before


def test_a_damaged_memory_is_no_memory(store: Store) -> None:
    store.remember("a/int8", stage_of())
    edit(store.root / "last/a/int8.json", lambda content: content.replace(b"convert", b"quantize"))
    assert store.last("a/int8") is None


@pytest.mark.parametrize("label", ["", "/etc/x", "a//b", "../x", "a/../b", ".", "a/", "a b", "a\\b", "a\n"])
def test_a_label_that_is_no_plain_path_is_refused(store: Store, label: str) -> None:
    with pytest.raises(ValueError, match="is no label"):
        store.remember(label, stage_of())


# Stores that cannot be used


def test_a_store_below_a_regular_file_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "store")
    assert store.find(stage_of().key) is None
    for use in (
        lambda: store.make(stage_of(), unwanted),
        lambda: store.put_record(KEY, {}),
        lambda: store.remember("a/b", stage_of()),
    ):
        with pytest.raises(StageError, match=r"^cannot use the store .*/file/store: Not a directory") as caught:
            use()
        assert caught.value.hint == "point MODELKIT_STORE at a folder you can write to"


def test_a_store_that_is_a_regular_file_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StageError, match=r"^cannot use the store .*/file: "):
        Store(tmp_path / "file").make(stage_of(), unwanted)


def test_a_file_where_the_store_wants_a_folder_is_named_in_the_error(store: Store) -> None:
    store.root.mkdir()
    (store.root / "objects").touch()
    with pytest.raises(StageError, match=r"^cannot use the store .*/store: .*/store/objects"):
        store.make(stage_of(), writer())


def test_a_full_device_is_told_in_one_line(store: Store) -> None:
    # A real ENOSPC: the kernel refuses every write to this device. It comes without a file name, as from a full disk.
    def write(folder: Path) -> None:
        writer()(folder)
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(StageError) as caught:
        store.make(stage_of(), write)
    assert caught.match(rf"^no space left while convert was writing to {store.root} \(\d+\.\d [GM]B free\); free some")
    assert caught.value.hint == "free some space or point MODELKIT_STORE at a larger disk"
    assert traces(store.root) == []


def test_the_free_space_is_told_as_it_was_before_tidying_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def write(folder: Path) -> None:
        def disk_usage(place: Path) -> SimpleNamespace:
            asked.append(folder.exists())
            return SimpleNamespace(free=12_345_678)

        monkeypatch.setattr("modelkit.store.shutil.disk_usage", disk_usage)
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(StageError, match=r"\(12\.3 MB free\)"):
        store.make(stage_of(), write)
    assert asked == [True]


def test_a_file_system_without_locks_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StageError, match="has no file locks"):
        store.make(stage_of(), unwanted)


# Many threads


def test_threads_that_want_one_key_make_it_once(store: Store) -> None:
    start, calls, made = threading.Barrier(8), [], []

    def write(folder: Path) -> None:
        calls.append(folder)
        writer()(folder)

    def ask() -> None:
        start.wait()
        made.append(store.make(stage_of(), write))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(artifact.reused for artifact in made) == [False] + [True] * 7


def test_readers_see_a_whole_entry_or_none_while_it_is_spoilt_and_made_again(store: Store) -> None:
    done = threading.Event()
    seen: list[Any] = []

    def read() -> None:
        mine = Store(store.root)
        while not done.is_set():
            found = mine.find(stage_of().key)
            seen.append(found and found.files)

    made = store.make(stage_of(), writer())
    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(15):
        edit(store.make(stage_of(), writer()).folder / "model.onnx", lambda content: content[:-1])
    store.make(stage_of(), writer())
    done.set()
    reader.join()
    assert all(files is None or files == made.files for files in seen)
    assert Store(store.root).find(stage_of().key) == made
