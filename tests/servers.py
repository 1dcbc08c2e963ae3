"""Real servers on loopback: a hub for the real huggingface_hub, an index for the real pip, and plain files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"


@dataclass
class Answer:
    """What one request gets; `cut` sends fewer bytes than Content-Length promises."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0


class Server:
    """Base: counts requests and answers them through `answer`."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str) -> Answer:
        raise NotImplementedError

    def posted(self, path: str, form: Mapping[str, list[str]]) -> Answer:
        """What a form sent to `path` gets."""
        return Answer(405)

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Serve on a free port; `url` is the address without a slash at its end."""
        web = _Web(("127.0.0.1", 0), _Handler)
        web.answering = self
        self.url = f"http://127.0.0.1:{web.server_port}"
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            web.shutdown()
            web.server_close()
            thread.join()


class _Web(ThreadingHTTPServer):
    answering: Server

    def handle_error(self, request: object, client_address: object) -> None:
        # A client that goes away in the middle is part of several tests.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: _Web

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _answer(self, path: str) -> Answer:
        if self.command != "POST":
            return self.server.answering.answer(self.command, path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        return self.server.answering.posted(path, parse_qs(body.decode()))

    def _respond(self) -> None:
        self.server.answering.requests.append(f"{self.command} {self.path}")
        answer = self._answer(unquote(urlsplit(self.path).path))
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            answer = _part(answer, int(wanted[1]), int(wanted[2] or len(answer.body) - 1))
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) - answer.cut])

    def log_message(self, *_: object) -> None:
        """Silent."""


def _part(answer: Answer, first: int, last: int) -> Answer:
    """RFC 9110, section 14; an answer that is going to be cut is not cut twice."""
    if answer.status != 200 or answer.cut or not first <= last < len(answer.body):
        return answer
    place = {"Content-Range": f"bytes {first}-{last}/{len(answer.body)}"}
    return Answer(206, answer.body[first : last + 1], {**answer.headers, **place})


class Hub(Server):
    """One model repository, good enough for huggingface_hub 2.4.

    `fault` maps a path inside the repository, or 'api' for everything that is not a file, to what goes wrong:
    'flip' (one byte), 'cut' (half the bytes), 'gated', or a status.
    """

    def __init__(self, files: Mapping[str, bytes], repository: str = "someone/model", commit: str = COMMIT) -> None:
        super().__init__()
        self.files, self.repository, self.commit = dict(files), repository, commit
        self.fault: dict[str, str | int] = {}
        self.branches: tuple[str, ...] = ()

    def answer(self, method: str, path: str) -> Answer:
        if found := re.fullmatch(rf"/{self.repository}/resolve/([^/]+)/(.+)", path):
            return self._file(found[1], found[2])
        if "api" in self.fault:
            return self._refusal(self.fault["api"])
        if found := re.fullmatch(rf"/api/models/{self.repository}(?:/(revision|tree)/(.+))?", path):
            return self._api(found[1], found[2] or "main")
        return Answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def posted(self, path: str, form: Mapping[str, list[str]]) -> Answer:
        """Of the files that `paths` names what the tree says of them."""
        found = re.fullmatch(rf"/api/models/{self.repository}/paths-info/(.+)", path)
        if not found or "api" in self.fault:
            return self.answer("POST", path)
        listed = self._api("tree", found[1])
        if listed.status != 200:
            return listed
        return _json([entry for entry in json.loads(listed.body) if entry["path"] in form.get("paths", ())])

    def _api(self, what: str | None, revision: str) -> Answer:
        revision, folder = self._cut(revision) if what == "tree" else (revision, "")
        if revision not in self._revisions:
            return Answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if what == "tree":
            entries = [{"type": "file", "path": name, **_identity(body)} for name, body in self.files.items()]
            return _json([entry for entry in entries if str(entry["path"]).startswith(folder)])
        siblings = [{"rfilename": name} for name in self.files]
        return _json({"id": self.repository, "sha": self.commit, "siblings": siblings})

    @property
    def _revisions(self) -> tuple[str, ...]:
        return (self.commit, "main", "HEAD", *self.branches)

    def _cut(self, place: str) -> tuple[str, str]:
        """Revision and folder (with a slash at its end, or empty) of a tree; either may hold slashes."""
        known = (one for one in self._revisions if place == one or place.startswith(f"{one}/"))
        revision = next(known, place)
        folder = place.removeprefix(revision).strip("/")
        return revision, folder and f"{folder}/"

    def _file(self, revision: str, name: str) -> Answer:
        fault = self.fault.get(name)
        if isinstance(fault, int) or fault == "gated":
            return self._refusal(fault)
        if revision not in self._revisions:
            return Answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if name not in self.files:
            return Answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit})
        body = self.files[name]
        headers = {"X-Repo-Commit": self.commit, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        if fault == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        return Answer(200, body, headers, len(body) // 2 if fault == "cut" else 0)

    @staticmethod
    def _refusal(fault: str | int) -> Answer:
        if fault == "gated":
            return Answer(403, b"", {"X-Error-Code": "GatedRepo"})
        return Answer(int(fault))


class Hubs(Server):
    """Several model repositories under one address."""

    def __init__(self, hubs: Iterable[Hub]) -> None:
        super().__init__()
        self.hubs = {hub.repository: hub for hub in hubs}

    def answer(self, method: str, path: str) -> Answer:
        owner_and_name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if hub := self.hubs.get(owner_and_name):
            return hub.answer(method, path)
        return Answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})


def _json(content: object) -> Answer:
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def _identity(body: bytes) -> dict[str, str | int]:
    blob = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
    return {"size": len(body), "oid": blob}


class Index(Server):
    """A simple package index (PEP 503) with the wheels of one folder."""

    def __init__(self, wheels: Path) -> None:
        super().__init__()
        self.wheels = wheels

    def answer(self, method: str, path: str) -> Answer:
        if path.startswith("/wheels/"):
            return Answer(200, (self.wheels / path.removeprefix("/wheels/")).read_bytes())
        name = path.removeprefix("/simple/").strip("/").replace("-", "_")
        links = [f'<a href="/wheels/{file.name}">{file.name}</a>' for file in self.wheels.glob(f"{name}-*.whl")]
        page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
        return Answer(200 if links else 404, page, {"Content-Type": "text/html"})


class Files(Server):
    """Plain files by path; `first` holds answers that come before them, one per request."""

    types: ClassVar[dict[str, str]] = {"Content-Type": "application/octet-stream"}

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__()
        self.files = {f"/{name}": body for name, body in files.items()}
        self.first: list[Answer] = []

    def answer(self, method: str, path: str) -> Answer:
        if self.first:
            return self.first.pop(0)
        return Answer(200, self.files[path], self.types) if path in self.files else Answer(404)


def wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A valid wheel with `files` (name in the wheel -> content) in `folder`."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    tags = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": tags,
    }
    record = "".join(f"{entry},sha256={_urlsafe(body)},{len(body)}\n" for entry, body in content.items())
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry, body in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            packed.writestr(entry, body)
    return path


def _urlsafe(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()


def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take proxies, tokens and the user's pip configuration out of the environment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def use_hub(monkeypatch: pytest.MonkeyPatch, home: Path, endpoint: str) -> None:
    """Point the real huggingface_hub of this process at `endpoint`, with its cache in `home`."""
    from huggingface_hub import close_session, constants

    only_loopback(monkeypatch)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    # Without this list huggingface_hub asks its own hub for one, once a day.
    harnesses = home / "agent-harnesses.json"
    harnesses.write_text('{"standardEnvVars": [], "harnesses": {}}')
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(harnesses))
    # The shared client keeps the proxies it saw when it was made.
    close_session()


def use_index(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Point the real pip of child processes at `url` and at nothing else."""
    only_loopback(monkeypatch)
    for name in ("PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", url)
