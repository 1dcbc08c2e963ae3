"""A model repository on a Hugging Face Hub, or on anything that answers like one (`HF_ENDPOINT`)."""

# ruff: noqa: PLC0415  huggingface_hub costs half a second at start-up, and most runs fetch nothing

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit import file_names
from modelkit.errors import SourceError
from modelkit.vocabulary import Fetching, Progress, Wanted

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

COMMIT = re.compile(r"[0-9a-f]{40}")
TRUE = frozenset({"1", "ON", "YES", "TRUE"})
WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})
PAUSES = (0.5, 1.0)
"""Seconds before the second and the third attempt to look a repository up."""
ANSWER_SECONDS = 5.0
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
ELSEWHERE = "check the connection or proxy, or add a mirror to the manifest"


@dataclass(frozen=True)
class Options:
    """Which repository, as `owner/name`, at which commit, tag or branch."""

    hub: str
    revision: str | None = None


def fetch(options: Options, wanted: Wanted, into: Path, context: Fetching) -> str:
    """Put the wanted files into `into`, by way of the ordinary Hugging Face cache; the identity is the full commit.

    Exact names at a full commit that are all cached cost no request. Raises `SourceError` for everything a hub can
    answer or fail to answer; sizes are checked here, contents are not (huggingface_hub does not either).
    """
    file_names.refuse_unsafe(wanted.names)
    endpoint = _endpoint()
    with _explained(options, endpoint):
        commit, cached = options.revision or "", _cached(options, wanted)
        if cached is None:
            _refuse_offline(options, wanted, context)
            commit, names = _look_up(options, endpoint)
            cached = {
                name: _download(options, commit, name, endpoint, context.progress)
                for name in file_names.select(wanted, names)
            }
    for name, source in cached.items():
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # A copy and never a link: who writes to the artifact must not damage the cache, nor the other way round.
        shutil.copyfile(source, target)
    return commit


def _cached(options: Options, wanted: Wanted) -> dict[str, Path] | None:
    """The files in the cache, if names and commit are exact and all of them are there."""
    from huggingface_hub import try_to_load_from_cache

    if not wanted.names or not COMMIT.fullmatch(options.revision or ""):
        return None
    found = {name: try_to_load_from_cache(options.hub, name, revision=options.revision) for name in wanted.names}
    paths = {name: Path(path) for name, path in found.items() if isinstance(path, str)}
    return paths if len(paths) == len(wanted.names) else None


def _look_up(options: Options, endpoint: str) -> tuple[str, list[str]]:
    """Commit and file names of the repository.

    One bounded request that says early whether a hub is there at all: huggingface_hub's own calls would retry for
    half a minute when the name does not resolve, and for minutes when packets are dropped.
    """
    try:
        info = _ask(options, endpoint)
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_a_hub(endpoint) from error
    if not COMMIT.fullmatch(info.sha or "") or info.siblings is None:
        raise _not_a_hub(endpoint)
    return str(info.sha), [sibling.rfilename for sibling in info.siblings]


def _ask(options: Options, endpoint: str) -> ModelInfo:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint)
    for pause in PAUSES:
        try:
            return api.model_info(options.hub, revision=options.revision, timeout=ANSWER_SECONDS)
        except HfHubHTTPError as error:
            if error.response.status_code not in WORTH_ANOTHER_TRY:
                raise
        except httpx2.NetworkError:
            # Refused or unresolved answers at once, so asking again is cheap; a timeout has cost enough.
            pass
        time.sleep(pause)
    return api.model_info(options.hub, revision=options.revision, timeout=ANSWER_SECONDS)


def _download(options: Options, commit: str, name: str, endpoint: str, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(
        options.hub, name, revision=commit, endpoint=endpoint, tqdm_class=_silent_bar(name, progress)
    )
    return Path(path)


def _silent_bar(name: str, progress: Progress) -> Any:
    """What huggingface_hub takes for a tqdm class; it draws nothing and tells `progress`."""

    class Bar:
        def __init__(self, *, total: int | None = None, initial: int = 0, **_: object) -> None:
            self.n, self.total = initial, total

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to tidy."""

        def update(self, n: int = 1) -> None:
            self.n += n
            progress(name, self.n, self.total)

        def update_transfer(self, n: int) -> None:
            """Bytes on the wire are not told; that this exists keeps Xet from opening a second bar for them."""

        def __getattr__(self, _: str) -> Any:
            # Everything else only concerns drawing: refresh, close, set_postfix_str ...
            return lambda *_, **__: None

    return Bar


def _endpoint() -> str:
    from huggingface_hub import constants

    # huggingface_hub reads the variable once, when it is imported.
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _refuse_offline(options: Options, wanted: Wanted, context: Fetching) -> None:
    from huggingface_hub import constants

    by_variable = os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE or constants.is_offline_mode()
    if not (context.offline or by_variable):
        return
    why = "this run is offline" if context.offline else "HF_HUB_OFFLINE is set"
    if not COMMIT.fullmatch(options.revision or ""):
        missing = f"'{options.revision or 'the default branch'}' is not a full commit"
    elif wanted.names:
        missing = "not every wanted file is in the cache"
    else:
        # The cache may hold a part of the repository, and nothing would tell.
        missing = "without a lock the wanted files are not known"
    raise SourceError(f"{why} and {missing}", hint="run it online once")


@contextmanager
def _explained(options: Options, endpoint: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence. Xet raises RuntimeError and OSError of its own, a proxy
    that cannot be used ValueError or ImportError.
    """
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, RuntimeError, ImportError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _reason(error, options, file_names.without_secrets(endpoint)) from error


def _reason(error: BaseException, options: Options, endpoint: str) -> SourceError:  # noqa: PLR0911
    import httpx2
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return _gated(f"{endpoint}/{options.hub}")
        case errors.RepositoryNotFoundError():
            hint = f"check the spelling; if it is private, {LOG_IN}"
            return SourceError(f"{endpoint} has no such repository, or it is private", hint=hint)
        case errors.RevisionNotFoundError():
            return SourceError(f"has no revision '{options.revision}'", hint="use the full commit of this repository")
        case errors.RemoteEntryNotFoundError():
            name = error.response.url.path.rpartition(f"{options.hub}/resolve/")[2].partition("/")[2]
            return SourceError(f"has no file '{name}'", hint="name the files in `source.files`")
        case errors.HfHubHTTPError():
            return _status(error.response.status_code, endpoint)
        case errors.HFValidationError():
            return SourceError(f"'{options.hub}' is not the id of a repository", hint="write it as owner/name")
        case errors.LocalEntryNotFoundError() if error.__cause__:
            return _reason(error.__cause__, options, endpoint)
        case httpx2.TimeoutException():
            return SourceError(f"{endpoint} did not answer in time", hint=ELSEWHERE)
        case httpx2.TransportError() | httpx2.InvalidURL():
            return SourceError(f"{endpoint} cannot be reached ({_first_line(error)})", hint=ELSEWHERE)
        case json.JSONDecodeError() | UnicodeError() | httpx2.DecodingError() | errors.FileMetadataError():
            return _not_a_hub(endpoint)
        case _:
            return SourceError(f"the download failed: {_first_line(error)}", hint="run it again, or add a mirror")


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _gated(page: str) -> SourceError:
    if not _has_token():
        hint = f"accept the licence at {page}, then {LOG_IN}"
        return SourceError("the repository is gated, and no token was found on this machine", hint=hint)
    hint = f"accept the licence at {page} with the account that the token belongs to, or use another account's token"
    return SourceError("the repository is gated, and the account of this token has not been granted access", hint=hint)


def _status(status: int, endpoint: str) -> SourceError:
    match status:
        case 401:
            return SourceError(f"{endpoint} asks for a valid login (401)", hint=f"{LOG_IN}, or remove a stale token")
        case 403:
            who = "the account of this token" if _has_token() else "whoever comes without a token"
            return SourceError(f"{endpoint} forbids {who} to read it (403)", hint=LOG_IN)
        case 404:
            return SourceError(f"{endpoint} answered 404", hint="check HF_ENDPOINT and the id of the repository")
        case 429:
            return SourceError(f"{endpoint} limits the rate of requests (429)", hint=f"wait, or {LOG_IN}")
        case _:
            return SourceError(f"{endpoint} answered {status}", hint="try again later, or add a mirror to the manifest")


def _not_a_hub(endpoint: str) -> SourceError:
    return SourceError(f"{endpoint} does not answer like a Hugging Face Hub", hint="check HF_ENDPOINT and the proxy")


def _first_line(error: BaseException) -> str:
    return file_names.without_secrets(str(error).partition("\n")[0]) or type(error).__name__
