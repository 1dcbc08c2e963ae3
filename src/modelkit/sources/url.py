"""Files on any web server: a folder whose file names are known, or one archive."""

# ruff: noqa: PLC0415  httpx2 costs a tenth of a second at start-up, and most runs fetch nothing

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, unquote, urlsplit

from modelkit import containers, file_names
from modelkit.errors import SourceError
from modelkit.vocabulary import Fetching, Progress, Wanted

if TYPE_CHECKING:
    import httpx2

ARCHIVES = {".zip": "zip", ".whl": "zip", ".tar": "tar", ".tar.gz": "tar", ".tgz": "tar"}
ABSENT = frozenset({404, 410})
WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})
PAUSES = (0.5, 1.0)
"""Seconds before the second and the third attempt."""
CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 30.0
HINT = "check the address and the connection, or add a mirror"


@dataclass(frozen=True)
class Options:
    """A folder, ending in '/', or an archive: .zip, .whl, .tar, .tar.gz, .tgz; `http`, `https` or `file`."""

    url: str


def fetch(options: Options, wanted: Wanted, into: Path, context: Fetching) -> str:
    """Put the wanted files into `into`; the identity is the URL without user, password and query.

    Raises `SourceError` if the address cannot be used or reached, or serves less than it promised. A folder on a web
    server cannot be listed, so its files must be known: from a lock, or because every pattern is a plain name.
    """
    import httpx2

    parts = _parts(options.url)
    if context.offline and parts.scheme != "file":
        raise SourceError("this run is offline", hint="run it online once")
    timeout = httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    # Any compression on the way would make Content-Length mean something else than the file's size.
    headers = {"Accept-Encoding": "identity"}
    try:
        client = httpx2.Client(timeout=timeout, headers=headers, follow_redirects=True)
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        raise SourceError(
            "the proxy of this environment cannot be used", hint="check HTTPS_PROXY and ALL_PROXY"
        ) from error
    with client:
        if parts.path.endswith("/"):
            _fetch_folder(client, options.url, wanted, into, context.progress)
        else:
            _fetch_archive(client, options.url, wanted, into, context.progress)
    return file_names.without_secrets(options.url)


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise SourceError("is not an address", hint="check its spelling") from error
    if parts.scheme not in ("http", "https", "file"):
        raise SourceError(f"'{parts.scheme}' addresses are not supported", hint="use https, http or file")
    if parts.scheme == "file" and not parts.path.startswith("/"):
        raise SourceError("a file address must be absolute", hint="use `path` for a folder beside the manifest")
    return parts


def _fetch_folder(client: httpx2.Client, url: str, wanted: Wanted, into: Path, progress: Progress) -> None:
    names = wanted.names or wanted.patterns
    if patterns := [name for name in names if file_names.is_pattern(name)]:
        raise SourceError(
            f"a plain web folder cannot be listed, so nothing can be found for {file_names.listed(patterns)}",
            hint="name the files one by one in `source.files`",
        )
    file_names.refuse_unsafe(names)
    served = []
    for name in names:
        # A signed address keeps its query behind the file's name.
        folder, mark, query = url.partition("?")
        if _download(client, folder + quote(name) + mark + query, into / name, name, progress):
            served.append(name)
    file_names.select(wanted, served)


def _fetch_archive(client: httpx2.Client, url: str, wanted: Wanted, into: Path, progress: Progress) -> None:
    path = urlsplit(url).path
    kind = next((kind for suffix, kind in ARCHIVES.items() if path.endswith(suffix)), None)
    if kind is None:
        raise SourceError("is neither a folder nor a known archive", hint=f"end it in '/' or {', '.join(ARCHIVES)}")
    name = path.rpartition("/")[2]
    with tempfile.TemporaryDirectory(dir=into, prefix=".url-") as scratch:
        packed = Path(scratch, "archive")
        if not _download(client, url, packed, name, progress):
            raise SourceError("there is no such file", hint=HINT)
        with containers.archive(packed, kind) as found:
            file_names.refuse_unsafe(found.sizes)
            root = file_names.root_of(wanted, found.sizes)
            inside = [entry.removeprefix(root) for entry in found.sizes if entry.startswith(root)]
            for chosen in file_names.select(wanted, inside):
                containers.copy(found, root + chosen, into / chosen, chosen, progress)


def _download(client: httpx2.Client, url: str, target: Path, name: str, progress: Progress) -> bool:
    """Write what `url` serves to `target`; False if there is nothing. Tries again what may pass."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if url.startswith("file:"):
        return _copy_local(url, target, name)
    for pause in (*PAUSES, None):
        status, trouble = _attempt(client, url, target, name, progress)
        if status is not None and (status in ABSENT or status == 200):
            return status == 200
        if pause is None or (status is not None and status not in WORTH_ANOTHER_TRY):
            break
        time.sleep(pause)
    raise SourceError(f"'{name}': {trouble}", hint=HINT)


def _attempt(client: httpx2.Client, url: str, target: Path, name: str, progress: Progress) -> tuple[int | None, str]:
    """One request: its status, or None if there was no whole answer, and what to say about it."""
    import httpx2

    host = urlsplit(url).hostname
    try:
        with client.stream("GET", url) as response:
            if response.status_code != 200:
                return response.status_code, f"{host} answered {response.status_code} {response.reason_phrase}"
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            with target.open("wb") as out:
                for chunk in response.iter_bytes(containers.CHUNK):
                    out.write(chunk)
                    progress(name, out.tell(), total)
            if total is not None and response.num_bytes_downloaded != total:
                return None, f"{host} sent {response.num_bytes_downloaded} of {total} bytes"
            return 200, "OK"
    except httpx2.TimeoutException:
        return None, f"{host} did not answer in time"
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return None, f"{host} cannot be reached ({file_names.without_secrets(str(error)) or type(error).__name__})"


def _copy_local(url: str, target: Path, name: str) -> bool:
    source = Path(unquote(urlsplit(url).path))
    if not source.is_file():
        return False
    try:
        stream = source.open("rb")
    except OSError as error:
        raise SourceError(f"'{name}' cannot be read: {error.strerror}", hint="check its permissions") from error
    with stream, target.open("wb") as out:
        shutil.copyfileobj(stream, out, containers.CHUNK)
    return True
