"""Every code block of README.md is run, in a copy of the repository with this environment as its `.venv`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelkit import conformance, manifest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "README.md").read_text("utf-8")
NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)


INSTALLING = [block for block in blocks("sh") if "pip install" in block]
SHELL = [block for block in blocks("sh") if "pip install" not in block]
PYTHON = blocks("python")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, to which nothing was done yet."""
    folder = tmp_path_factory.mktemp("readme") / "modelkit"
    shutil.copytree(REPOSITORY, folder, ignore=NOT_COPIED)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture(scope="module")
def finished(copy: Path, real_store: Path) -> Path:
    """The copy after the README's first command: its models are built."""
    done = bash(".venv/bin/modelkit build manifests/minilm-l6.yaml", copy, real_store)
    assert done.returncode == 0, done.stderr
    return copy


def bash(script: str, folder: Path, store: Path) -> subprocess.CompletedProcess[str]:
    """Runs as a person would after activating the environment, away from the options of this pytest run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, env={**environment, "PATH": path, "MODELKIT_STORE": str(store), "COLUMNS": "100"},
    )  # fmt: skip


def test_every_block_is_output_or_a_manifest_or_runs_here() -> None:
    assert set(re.findall(r"^```(\w*)", TEXT, re.M)) == {"", "python", "sh", "text", "yaml"}


def test_the_two_commands_for_a_fresh_machine_come_first() -> None:
    # .ci/run takes them from here, in this order, and runs them in a fresh environment.
    assert len(INSTALLING) == 2
    assert blocks("sh")[:2] == INSTALLING


def test_the_first_command_ends_with_the_table_that_is_shown(copy: Path, real_store: Path) -> None:
    done = bash(INSTALLING[0].split("&&")[-1], copy, real_store)

    shown = next(block for block in blocks("text") if "worst margin" in block)
    assert done.returncode == 0, done.stdout
    assert shape(shown) in shape(done.stdout)
    planned = conformance.plan(manifest.load(REPOSITORY / "manifests" / "minilm-l6.yaml"))
    assert shown.count(f"{len(planned)} passed") == 2


def shape(table: str) -> str:
    """A table without what differs between processors: the worst margins."""
    return re.sub(r"[+-][\d.]+% +[a-z-]+ *│", "│", table)


@pytest.mark.parametrize("script", SHELL, ids=lambda script: script.splitlines()[0].split("#")[0].strip())
def test_the_commands_run(script: str, finished: Path, real_store: Path) -> None:
    done = bash(script, finished, real_store)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[0])
def test_the_python_runs(code: str, finished: Path, real_store: Path) -> None:
    done = bash(f".venv/bin/python -W error - <<'EOF'\n{code}EOF", finished, real_store)
    assert done.returncode == 0, done.stderr


def test_both_ways_to_use_a_model_give_the_same_vectors(finished: Path, real_store: Path) -> None:
    lines = [f"scope = {{}}; exec({code!r}, scope); found.append(scope['vectors'])" for code in PYTHON]
    script = "\n".join(["found = []", *lines, "print('apart', abs(found[0] - found[1]).max())"])

    done = bash(f".venv/bin/python - <<'EOF'\n{script}\nEOF", finished, real_store)

    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-3


def test_the_explained_manifest_is_the_one_that_is_built() -> None:
    [explained] = blocks("yaml")
    real = (REPOSITORY / "manifests" / "minilm-l6.yaml").read_text("utf-8")
    assert yaml.safe_load(explained) == yaml.safe_load(real)


def test_the_mistake_is_told_as_shown(copy: Path, tmp_path: Path) -> None:
    shown = next(block for block in blocks("text") if block.startswith("error: "))
    [(right, wrong)] = re.findall(r"such as '(.+?)', got '(.+?)'", shown)
    manifest = copy / "manifests" / "minilm-l6.yaml"
    text = manifest.read_text("utf-8")
    manifest.write_text(text.replace(f"budget: {right}", f"budget: {wrong}"))

    done = bash("modelkit validate manifests/", copy, tmp_path)

    manifest.write_text(text)
    assert (done.returncode, done.stderr) == (2, shown)
