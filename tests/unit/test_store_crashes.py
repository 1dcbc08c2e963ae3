"""The store among real processes: some wait for each other, some are killed, some hit a limit of the kernel."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelkit.digests import key_of
from modelkit.store import Store
from modelkit.vocabulary import Stage

SLOW = Stage("slow", key_of({"stage": "slow"}), {"stage": "slow"})
OTHER = Stage("other", key_of({"stage": "other"}), {"stage": "other"})
CONTENT = b"weights" * 1000
PATIENCE = 60.0

MAKER = """
import os, sys, time
from pathlib import Path
from modelkit.digests import key_of
from modelkit.store import Store
from modelkit.vocabulary import Stage

root, desk = Path(sys.argv[1]), Path(sys.argv[2])

def write(folder):
    log = os.open(desk / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    (folder / "model.onnx").write_bytes(b"weights" * 500)
    os.write(log, b"begun\\n")
    while not (desk / "go").exists():
        time.sleep(0.01)
    (folder / "model.onnx").write_bytes(b"weights" * 1000)

print("asking", flush=True)
made = Store(root).make(Stage("slow", key_of({"stage": "slow"}), {"stage": "slow"}), write)
print("reused" if made.reused else "made", flush=True)
"""

BUSY = """
import sys
from pathlib import Path
from modelkit.digests import key_of
from modelkit.store import Store
from modelkit.vocabulary import Stage

store, number = Store(Path(sys.argv[1])), 0
while True:
    material = {"number": number}
    store.make(Stage("busy", key_of(material), material), lambda folder: (folder / "x").write_bytes(bytes(number)))
    store.put_record(key_of(material), {"size": number})
    store.remember("busy/x", Stage("busy", key_of(material), material))
    number += 1
"""

LIMITED = """
import resource, signal, sys
from pathlib import Path
from modelkit.digests import key_of
from modelkit.errors import StageError
from modelkit.store import Store
from modelkit.vocabulary import Stage

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the kernel answers EFBIG instead of killing
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
store = Store(Path(sys.argv[1]))
stage = Stage("convert", key_of({}), {})

def uses():
    yield lambda: store.make(stage, lambda folder: (folder / "model.onnx").write_bytes(bytes(1 << 17)))
    yield lambda: store.make(stage, lambda folder: (folder / "x").touch(), note={"long": "x" * (1 << 17)})
    yield lambda: store.put_record(key_of({}), {"long": "x" * (1 << 17)})

for use in uses():
    try:
        use()
    except StageError as error:
        print(error)
"""

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def start(tmp_path: Path, store: Store) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(store.root), str(tmp_path)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def write(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(CONTENT)


def begun(tmp_path: Path) -> int:
    log = tmp_path / "log"
    return log.read_text().count("begun\n") if log.exists() else 0


def building(store: Store) -> list[Path]:
    return list((store.root / "building").iterdir())


def test_two_processes_that_want_one_key_make_it_once(tmp_path: Path, store: Store, start: Start) -> None:
    first = start(MAKER)
    until(lambda: begun(tmp_path) == 1)
    second = start(MAKER)
    assert second.stdout is not None
    assert second.stdout.readline() == "asking\n"
    time.sleep(0.3)  # it has asked by now; if not, it finds the entry and the counts are the same
    (tmp_path / "go").touch()
    assert first.communicate(timeout=PATIENCE)[0] == "asking\nmade\n"
    assert second.communicate(timeout=PATIENCE)[0] == "reused\n"
    assert begun(tmp_path) == 1


def test_nothing_is_visible_before_a_stage_has_finished(tmp_path: Path, store: Store, start: Start) -> None:
    start(MAKER)
    until(lambda: begun(tmp_path) == 1)
    assert store.find(SLOW.key) is None
    assert list(store.entries()) == []


def test_what_a_killed_process_left_is_invisible_and_swept_by_the_next(
    tmp_path: Path, store: Store, start: Start
) -> None:
    victim = start(MAKER)
    until(lambda: begun(tmp_path) == 1)
    victim.kill()
    victim.wait()
    assert store.find(SLOW.key) is None
    assert list(store.root.glob("building/*/files/model.onnx")) != []

    made = store.make(SLOW, write)
    assert (made.folder / "model.onnx").read_bytes() == CONTENT
    assert building(store) == []
    assert store.dropped == []


def test_any_later_write_sweeps_whatever_it_writes(tmp_path: Path, store: Store, start: Start) -> None:
    victim = start(MAKER)
    until(lambda: begun(tmp_path) == 1)
    victim.kill()
    victim.wait()
    store.put_record(OTHER.key, {})
    assert building(store) == []


def test_who_waits_for_a_killed_process_makes_it_instead(tmp_path: Path, store: Store, start: Start) -> None:
    victim = start(MAKER)
    until(lambda: begun(tmp_path) == 1)
    heir = start(MAKER)
    assert heir.stdout is not None
    assert heir.stdout.readline() == "asking\n"
    victim.kill()
    until(lambda: begun(tmp_path) == 2)
    (tmp_path / "go").touch()
    assert heir.communicate(timeout=PATIENCE)[0] == "made\n"
    assert building(store) == []


def test_a_live_process_is_never_swept(tmp_path: Path, store: Store, start: Start) -> None:
    living = start(MAKER)
    until(lambda: begun(tmp_path) == 1)
    before = sorted(building(store))
    for number in range(3):
        store.put_record(OTHER.key, {"number": number})
        store.make(OTHER, write)
    assert sorted(building(store)) == before
    (tmp_path / "go").touch()
    assert living.communicate(timeout=PATIENCE)[0] == "asking\nmade\n"
    found = store.find(SLOW.key)
    assert found is not None
    assert (found.folder / "model.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_all_that_is_visible_is_whole(store: Store, start: Start, seed: int) -> None:
    victim = start(BUSY)
    until(lambda: list(store.root.glob("objects/??/*")))
    time.sleep(random.Random(seed).uniform(0.0, 0.1))
    victim.kill()
    victim.wait()

    keys = [artifact.chain[0].key for artifact in store.entries()]
    assert len(keys) == len(list(store.root.glob("objects/??/*"))) > 0
    assert all(store.find(key) for key in keys)
    records = list(store.root.glob("records/??/*"))
    assert all(store.get_record(path.stem) is not None for path in records)
    assert not list(store.root.glob("last/*/*")) or store.last("busy/x") is not None
    assert store.dropped == []
    store.make(OTHER, write)
    assert building(store) == []


def test_a_limit_of_the_kernel_is_told_in_one_line_and_leaves_nothing(store: Store, start: Start) -> None:
    lines = start(LIMITED).communicate(timeout=PATIENCE)[0].splitlines()
    assert len(lines) == 3
    for line, who in zip(lines, ["convert", "convert", "modelkit"], strict=True):
        assert line.startswith(f"no space left while {who} was writing to {store.root} (")
        assert line.endswith(" free): File too large; free some space or point MODELKIT_STORE at a larger disk")
    assert [path for path in store.root.rglob("*") if path.is_file() and path.parent.name != "locks"] == []
