"""Our hub on loopback, judged by what we did not write and the sources do not use.

npm's @huggingface/hub is a client of its own; olah is a mirror: it asks our hub as its upstream, by calls of its own,
and what comes out behind it must be what our hub gives.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, errors

from servers import COMMIT, Hub, use_hub

pytestmark = pytest.mark.hub
CLIENT = "@huggingface/hub@2.17.5"
MIRROR = "olah==0.5.4"
PATIENCE = 60
"""Seconds until the mirror listens; it takes half a second."""
REPOSITORY = "someone/model"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": bytes(range(256)) * 4000,
    "1_Pooling/config.json": b"{}",
}
SCRIPT = """
import { createHash } from "node:crypto";
import { downloadFile, fileDownloadInfo, listFiles, modelInfo } from "@huggingface/hub";
const hubUrl = process.argv[2], repo = "someone/model", revision = "main", found = {};
found.sha = (await modelInfo({ name: repo, hubUrl, additionalFields: ["sha"] })).sha;
found.files = {};
for await (const file of listFiles({ repo, hubUrl, revision, recursive: true })) {
  const info = await fileDownloadInfo({ repo, hubUrl, revision, path: file.path });
  const blob = await downloadFile({ repo, hubUrl, revision, path: file.path, xet: false });
  const body = Buffer.from(await blob.arrayBuffer());
  found.files[file.path] = [file.size, info.size, createHash("sha256").update(body).digest("hex")];
}
found.missing = await downloadFile({ repo, hubUrl, revision, path: "none.json", xet: false });
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    (folder / "look.mjs").write_text(SCRIPT)
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", CLIENT]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_another_client_lists_and_downloads_what_the_hub_holds(client: Path) -> None:
    with Hub(FILES).running() as hub:
        command = ["node", "look.mjs", hub.url]
        done = subprocess.run(command, cwd=client, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sha"] == COMMIT
    assert found["missing"] is None
    assert found["files"] == {name: [len(body), len(body), sha256(body).hexdigest()] for name, body in FILES.items()}


@pytest.fixture(scope="module")
def olah(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mirror's command, in an environment of its own."""
    folder = tmp_path_factory.mktemp("olah")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    install = [str(folder / "bin" / "pip"), "install", "--quiet", MIRROR]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "bin" / "olah-cli"


@contextmanager
def mirroring(olah: Path, hub: Hub, folder: Path) -> Iterator[str]:
    """The address of a mirror of `hub`, which holds nothing yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    upstream, own = hub.url.removeprefix("http://"), f"127.0.0.1:{port}"
    options = {
        "host": "127.0.0.1", "port": port, "mirror-netloc": own, "hf-scheme": "http", "hf-netloc": upstream,
        "hf-lfs-netloc": upstream, "repos-path": folder / "repositories", "log-path": folder / "logs",
    }  # fmt: skip
    command = [str(olah), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with (folder / "told").open("w+") as told:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=told, stderr=told)
        try:
            _wait(server, port, folder / "told")
            yield f"http://{own}"
        finally:
            server.terminate()
            server.wait(PATIENCE)


def _wait(server: subprocess.Popen[bytes], port: int, told: Path) -> None:
    late = time.monotonic() + PATIENCE
    while time.monotonic() < late and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"olah does not listen: {told.read_text()[-2000:]}")


def seen(client: HfApi, folder: Path) -> dict[str, Any]:
    """All that the real client is told of the repository at its endpoint, and the bytes it gets."""
    info, whole = client.model_info(REPOSITORY), Path(client.snapshot_download(REPOSITORY, local_dir=folder))
    paths = [path for path in whole.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {
        "info": (info.sha, sorted(file.rfilename for file in info.siblings or ())),
        "tree": sorted(
            (file.path, file.size, file.blob_id) for file in client.list_repo_tree(REPOSITORY, recursive=True)
        ),
        "folder": [file.path for file in client.list_repo_tree(REPOSITORY, "1_Pooling")],
        "some": [(file.path, file.size) for file in client.get_paths_info(REPOSITORY, ["config.json", "none.json"])],
        "metadata": {name: metadata(client, name) for name in FILES},
        "bytes": {path.relative_to(whole).as_posix(): path.read_bytes() for path in paths},
    }


def metadata(client: HfApi, name: str, repository: str = REPOSITORY, revision: str = "main") -> tuple[Any, ...]:
    url = f"{client.endpoint}/{repository}/resolve/{revision}/{name}"
    found = client.get_hf_file_metadata(url=url)
    return found.commit_hash, found.etag, found.size


def test_a_mirror_of_the_hub_gives_what_the_hub_gives(
    olah: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub(FILES, REPOSITORY).running() as hub, mirroring(olah, hub, tmp_path) as mirror:
        use_hub(monkeypatch, tmp_path, mirror)
        there, here = (
            seen(HfApi(endpoint), tmp_path / name) for name, endpoint in (("far", mirror), ("near", hub.url))
        )
    assert there == here
    assert there["bytes"] == FILES
    assert there["info"] == (COMMIT, sorted(FILES))
    assert there["folder"] == ["1_Pooling/config.json"]
    assert there["some"] == [("config.json", len(FILES["config.json"]))]
    assert [row[:2] for row in there["tree"]] == sorted((name, len(body)) for name, body in FILES.items())
    assert any(request.startswith("POST ") for request in hub.requests)


ABSENT: dict[str, tuple[Callable[[HfApi], object], type[Exception]]] = {
    "file": (lambda client: metadata(client, "none.json"), errors.EntryNotFoundError),
    "revision": (lambda client: metadata(client, "config.json", revision="other"), errors.RevisionNotFoundError),
    "repository": (
        lambda client: metadata(client, "config.json", repository="someone/else"),
        errors.RepositoryNotFoundError,
    ),
}


def test_what_the_hub_lacks_is_told_alike_by_a_mirror(
    olah: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub(FILES, REPOSITORY).running() as hub, mirroring(olah, hub, tmp_path) as mirror:
        use_hub(monkeypatch, tmp_path, mirror)
        for client in (HfApi(mirror), HfApi(hub.url)):
            for asked, kind in ABSENT.values():
                with pytest.raises(kind):
                    asked(client)
