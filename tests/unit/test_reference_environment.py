"""The reference environment: made once and whole from its lock, or refused with what to do. pip's index is a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelkit.errors import StageError
from modelkit.reference import environment

TWO_AT_ONCE = """
import sys
from pathlib import Path
from modelkit.reference import environment
environment.PINS, environment.IMPORTS, environment.NEEDED = Path(sys.argv[1]), ("tiny_one",), 0
print(environment.python())
"""


def wheel(index: Path, name: str, version: str = "1.0", requires: str = "", content: str = "VALUE = 1\n") -> None:
    """A wheel with one module, in the folder `index`."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with two distributions, a lock for them, and an empty cache folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel(folder, "tiny_one")
    wheel(folder, "tiny_two", "2.0+cpu", "Requires-Dist: gigabytes-of-cuda\n")
    pins = tmp_path / "requirements.txt"
    pins.write_text("# A lock.\ntiny_one==1.0\ntiny-two==2.0\n")
    monkeypatch.setattr(environment, "PINS", pins)
    monkeypatch.setattr(environment, "IMPORTS", ("tiny_one", "tiny_two"))
    monkeypatch.setattr(environment, "NEEDED", 0)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(environment.NAMED, raising=False)
    return folder


def refusal() -> str:
    with pytest.raises(StageError) as caught:
        environment.python()
    assert not environment.interpreter(environment.folder()).exists()
    assert environment.find() is None
    return str(caught.value)


def imported(interpreter: Path, name: str) -> bool:
    return subprocess.run([interpreter, "-I", "-c", f"import {name}"], capture_output=True, check=False).returncode == 0


def test_it_is_made_from_the_lock_alone_and_found_again(index: Path) -> None:
    assert environment.find() is None
    made = environment.python()
    assert imported(made, "tiny_one")
    assert imported(made, "tiny_two")
    assert environment.find() == made
    (index / "tiny_one-1.0-py3-none-any.whl").unlink()  # a second call would miss it
    assert environment.python() == made


def test_nothing_of_ours_is_visible_in_it(index: Path) -> None:
    assert not imported(environment.python(), "numpy")


def test_another_lock_is_another_environment(index: Path) -> None:
    first = environment.folder()
    environment.PINS.write_text("tiny_one==1.0\n")
    assert environment.folder() != first
    assert environment.folder().parent == first.parent


def test_progress_is_told_in_bytes(index: Path) -> None:
    wheel(index, "tiny_one", content="VALUE = 1\n" * 1_000_000)
    told: list[tuple[str, int, int | None]] = []
    environment.python(lambda *step: told.append(step))
    assert {what for what, _, _ in told} == {"reference environment"}
    assert told[-1][1] > 10_000_000


def test_a_half_made_one_is_never_used_and_is_made_again(index: Path) -> None:
    made = environment.python()
    (environment.folder() / "ready").unlink()
    left = environment.folder() / "left-by-a-killed-process"
    left.write_text("x")
    assert environment.find() is None
    assert environment.python() == made
    assert not left.exists()


def test_one_whose_python_is_gone_is_made_again(index: Path) -> None:
    made = environment.python()
    made.unlink()
    assert environment.find() is None
    assert imported(environment.python(), "tiny_one")


def test_two_processes_make_one(index: Path) -> None:
    environment.PINS.write_text("tiny_one==1.0\n")
    source = Path(str(environment.__file__)).parents[2]
    surroundings = {**os.environ, "PYTHONPATH": str(source)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_AT_ONCE, str(environment.PINS)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0][0] == said[1][0] == f"{environment.find()}\n"


def test_an_index_without_the_package_is_told_with_pips_own_line(index: Path) -> None:
    (index / "tiny_one-1.0-py3-none-any.whl").unlink()
    told = refusal()
    assert "cannot be made: Could not find a version that satisfies the requirement tiny_one==1.0" in told
    assert "PIP_INDEX_URL" in told
    log = Path(told.rpartition("the whole log is ")[2])
    assert "tiny_one" in log.read_text()


def test_an_index_that_refuses_is_told(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert "cannot be made: Could not find a version that satisfies the requirement tiny_one==1.0" in refusal()


def test_a_package_for_another_python_is_told(index: Path) -> None:
    wheel(index, "tiny_one", requires="Requires-Python: >=3.99\n")
    told = refusal()
    assert "requires a different" in told.lower() or "different python version" in told
    assert f"this is Python {sys.version_info.major}.{sys.version_info.minor}" in told


def test_a_full_disk_that_pip_meets_is_told() -> None:
    output = "Collecting x\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    told = str(environment._refusal(output, Path("made.log")))
    assert "No space left on device; free some space" in told


def test_too_little_room_is_told_before_anything_is_made(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "NEEDED", 3_000_000_000)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_200_000_000))
    told = refusal()
    assert "it needs 3 GB and" in told
    assert "has 1.2 GB free; free some space" in told
    assert not environment.folder().exists()


def test_a_cache_folder_that_is_a_file_is_told(index: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(StageError, match=r"cannot be made .+; set MODELKIT_REFERENCE or XDG_CACHE_HOME"):
        environment.python()


def test_what_does_not_import_is_no_environment(index: Path) -> None:
    wheel(index, "tiny_one", content="raise OSError('libcudart.so.12: cannot open shared object file')\n")
    told = refusal()
    assert "libcudart.so.12" in told
    assert "PIP_EXTRA_INDEX_URL" in told


def test_a_named_environment_is_used_when_it_holds_the_lock(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = environment.python()
    monkeypatch.setenv(environment.NAMED, str(environment.folder()))
    assert environment.python() == made


def test_a_named_environment_with_other_packages_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.python()
    monkeypatch.setenv(environment.NAMED, str(environment.folder()))
    environment.PINS.write_text("tiny_one==1.1\ntiny_two==2.0\ntiny_three==3\n")
    with pytest.raises(StageError) as caught:
        environment.python()
    assert "tiny_one is 1.0, the lock says 1.1 (and 1 more); install requirements.txt there" in str(caught.value)


def test_a_named_folder_that_is_no_environment_is_refused(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.NAMED, str(tmp_path / "nothing"))
    with pytest.raises(StageError, match="MODELKIT_REFERENCE names no virtual environment"):
        environment.find()


def test_the_lock_pins_every_package_and_names_no_cuda() -> None:
    pins = environment.pins()
    assert {"torch", "transformers", "optimum", "optimum-onnx", "accelerate"} <= pins.keys()
    assert all(version and " " not in version for version in pins.values())
    assert not [name for name in pins if "nvidia" in name or "cuda" in name or "triton" in name]
