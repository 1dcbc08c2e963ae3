"""Every mistake that is not ours: one clear line, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import stand_ins
from stand_ins import pickles

USAGE, COULD_NOT_RUN = 2, 3
ROOM = 40_000
"""Largest file, in bytes, on the disk that fills; the stand-in's weights need twice that."""


@dataclass(frozen=True)
class Mistake:
    """How a good project is spoilt, and what the one line must say."""

    spoil: Callable[[Path], None]
    exit_code: int
    says: tuple[str, ...]


def edited(old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "tiny.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return spoil


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "weights" / name).unlink()


def truncated(folder: Path) -> None:
    path = folder / "weights" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def tensors(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "weights" / "model.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)

    return spoil


def config(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "weights" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def missing_tensor(found: dict) -> None:
    del found["encoder.layer.1.output.dense.bias"]


def misshapen_tensor(found: dict) -> None:
    found["embeddings.LayerNorm.weight"] = found["embeddings.LayerNorm.weight"][:16].copy()


def broken_tokenizer(folder: Path) -> None:
    (folder / "weights" / "tokenizer.json").write_text('{"model": ')


def planted(folder: Path) -> None:
    """A pickle that asks for the system's shell, in the place of the weights."""
    edited("*.safetensors", "pytorch_model.bin")(folder)
    data = pickles.dictionary({"weight": b"cos\nsystem\n(" + pickles.text("touch planted") + b"tR"})
    pickles.zipped(folder / "weights" / "pytorch_model.bin", data, {})


SOURCE = 'path: weights\n  files: [config.json, "*.safetensors", tokenizer.json]'

MISTAKES = {
    "unknown key": Mistake(edited("budget:", "budgt:"), USAGE, ("tiny.yaml:21:5", "did you mean 'budget'?")),
    "wrong type": Mistake(
        edited("max_tokens: 32", "max_tokens: many"), USAGE, ("tiny.yaml:16:", "a whole number", "'many'")
    ),
    "duplicate key": Mistake(edited("license:", "name: twice\nlicense:"), USAGE, ("tiny.yaml:3:1", "name", "line 1")),
    "unreachable source": Mistake(
        edited(SOURCE, "url: http://127.0.0.1:9/model/\n  files: [config.json]"), COULD_NOT_RUN, ("127.0.0.1:9",)
    ),
    "missing folder": Mistake(edited("path: weights", "path: wieghts"), COULD_NOT_RUN, ("wieghts",)),
    "no config.json": Mistake(
        removed("config.json"), COULD_NOT_RUN, ("no config.json in path weights", "download it into that folder")
    ),
    "no weights": Mistake(removed("model.safetensors"), COULD_NOT_RUN, ("no *.safetensors", "source.files")),
    "no tokenizer": Mistake(
        removed("tokenizer.json"),
        COULD_NOT_RUN,
        ("no tokenizer.json in path weights", "download it into that folder, or make it"),
    ),
    "truncated safetensors": Mistake(
        truncated, COULD_NOT_RUN, ("model.safetensors", "no complete safetensors file", "fetch")
    ),
    "pickle that runs something": Mistake(
        planted, COULD_NOT_RUN, ("pytorch_model.bin asks to run os.system", "nothing of it was run", "do not load")
    ),
    "missing tensor": Mistake(
        tensors(missing_tensor), COULD_NOT_RUN, ("encoder.layer.1.output.dense.bias", "missing from model.safetensors")
    ),
    "misshapen tensor": Mistake(
        tensors(misshapen_tensor), COULD_NOT_RUN, ("embeddings.LayerNorm.weight", "[16]", "asks for [32]")
    ),
    "broken tokenizer": Mistake(broken_tokenizer, COULD_NOT_RUN, ("tokenizer.json does not parse",)),
    "vocabulary larger than the table": Mistake(
        config(vocab_size=20), COULD_NOT_RUN, ("tokenizer.json knows ids up to", "ends at 19")
    ),
    "unknown architecture": Mistake(
        config(model_type="brt"), COULD_NOT_RUN, ("'brt'", "knows only bert, ", "`export: optimum`", "prebuilt")
    ),
    "indivisible block": Mistake(
        edited("block: 16", "block: 128"), COULD_NOT_RUN, ("no multiple of the block of 128",)
    ),
}


def build(folder: Path, *arguments: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
    script = f"{prelude}\nfrom modelkit.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", script, "build", "tiny.yaml", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "MODELKIT_STORE": str(folder / "store"), "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip


def assert_nothing_half_written(folder: Path) -> None:
    assert not [path for path in (folder / "build").rglob("*") if path.is_file()]
    assert not list((folder / "store" / "building").glob("*"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    stand_ins.project(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_the_place_and_what_to_do(project: Path, name: str) -> None:
    mistake = MISTAKES[name]
    mistake.spoil(project)
    done = build(project, "--drafts", "--int4")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert (done.returncode, len(lines)) == (mistake.exit_code, 1), done.stderr
    assert [words for words in mistake.says if words not in lines[0]] == []
    assert_nothing_half_written(project)


def test_a_missing_manifest_is_a_usage_error(project: Path) -> None:
    (project / "tiny.yaml").unlink()
    done = build(project)
    assert done.returncode == USAGE
    assert done.stderr == "error: tiny.yaml: no such file or folder\n"


def test_wrong_bytes_under_a_lock_name_the_file_and_both_digests(project: Path) -> None:
    script = "from modelkit.cli import main; main()"
    environment = {**os.environ, "MODELKIT_STORE": str(project / "elsewhere")}
    subprocess.run([sys.executable, "-c", script, "lock", "tiny.yaml"], cwd=project, check=True, env=environment)
    config(comment="changed")(project)
    done = build(project)
    assert done.returncode == COULD_NOT_RUN
    assert "config.json has sha256" in done.stderr
    assert "expected" in done.stderr
    assert_nothing_half_written(project)


def test_a_disk_that_fills_is_told_with_what_to_do(project: Path) -> None:
    prelude = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM}, {ROOM}))"
    done = build(project, "--drafts", prelude=prelude)
    assert done.returncode == COULD_NOT_RUN
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "no space left" in done.stderr
    assert "MODELKIT_STORE" in done.stderr
    assert_nothing_half_written(project)


def test_after_a_disk_was_full_the_next_run_finishes(project: Path) -> None:
    prelude = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM}, {ROOM}))"
    build(project, "--drafts", prelude=prelude)
    assert build(project, "--drafts").returncode == 0
