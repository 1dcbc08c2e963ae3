"""Our hub on loopback, judged by a client we did not write and the sources do not use: npm's @huggingface/hub."""

from __future__ import annotations

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from servers import COMMIT, Hub

pytestmark = pytest.mark.hub
CLIENT = "@huggingface/hub@2.17.5"
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
