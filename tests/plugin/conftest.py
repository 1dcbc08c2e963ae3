"""A small project, built once for the whole session, in which `pytest --modelkit` is run for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import goldens
import stand_ins

Runner = Callable[..., pytest.RunResult]


def command(*arguments: str, cwd: Path, store: Path) -> subprocess.CompletedProcess[str]:
    """`modelkit ARGUMENTS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from modelkit.cli import main; main()", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "MODELKIT_STORE": str(store)},
    )  # fmt: skip


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A locked stand-in project with a golden, and the store that holds what was built of it."""
    folder = tmp_path_factory.mktemp("project")
    stand_ins.project(folder)
    # A lock holds the figures of every check: with the golden they are those that any later lock finds.
    for _ in range(2):
        done = command("lock", "tiny.yaml", cwd=folder, store=folder / "store")
        assert done.returncode == 0, done.stderr
        goldens.record(folder / "tiny.yaml", folder / "store")
    return folder


@pytest.fixture
def project(pytester: pytest.Pytester, built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `built` to work and to spoil in."""
    shutil.copytree(built, pytester.path, dirs_exist_ok=True)
    monkeypatch.setenv("MODELKIT_STORE", str(pytester.path / "store"))
    return pytester.path


@pytest.fixture
def run(pytester: pytest.Pytester) -> Runner:
    """`pytest --modelkit ARGUMENTS` in the project, in a process of its own."""

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess("--modelkit", "-p", "no:cacheprovider", *arguments)

    return run
