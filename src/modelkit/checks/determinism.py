"""The same bytes out, run after run, session after session, process after process."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from modelkit.errors import CheckError
from modelkit.vocabulary import Subject, Verdict

VERSION = 2
PROMISE = "the same inputs give the same bits, output by output, twice in one session and in a second process"
EVERY = 8
"""One text of so many: enough lengths and scripts, at a fraction of the corpus' time."""
UNREAD = 4
"""Texts with which every output of every graph is compared, whether the task reads it or not."""
PATIENCE = 600
"""Seconds the second process may take once this one is done."""


@dataclass(frozen=True)
class Options:
    """No limits: bits are equal or they are not."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Raises `CheckError` when the second process does not come to an answer."""
    texts = [row["text"] for row in subject.corpus[::EVERY]]
    # -P: a folder called modelkit where the user happens to stand must not be what is imported.
    command = [sys.executable, "-P", "-m", "modelkit.model", str(subject.artifact.folder)]
    # The other process starts first and works while this one does.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        _send(other, texts)
        model = subject.open(subject.artifact)
        digests = [sha256(model.outputs(texts).tobytes()).hexdigest() for _ in range(2)]
        digests.append(_answer(other))
    measured = {"texts": len(texts), "first": digests[0], "again": digests[1], "second_process": digests[2]}
    different = [name for name, digest in zip(("again", "second_process"), digests[1:], strict=True)
                 if digest != digests[0]]  # fmt: skip
    if different:
        return Verdict("determinism", "failed", f"other bits {' and '.join(different)}", measured)
    if restless := _restless(subject, texts[:UNREAD]):
        return Verdict("determinism", "failed", f"other bits in {restless} when the graph runs again", measured)
    return Verdict("determinism", "passed", f"{len(texts)} texts, bit-identical in three runs", measured)


def _restless(subject: Subject, texts: list[str]) -> str | None:
    """An output of a graph that is not the same twice."""
    from modelkit import graphs, runtime, tracing  # noqa: PLC0415

    folder = subject.artifact.folder
    sessions = runtime.Sessions(graphs.parts(folder))
    for part, runs in tracing.feeds(folder, subject.manifest.task, texts).items():
        for one in runs:
            first, again = (sessions[part].run(one.feed) for _ in range(2))
            for name, former, latter in zip(sessions[part].outputs, first, again, strict=True):
                if former.tobytes() != latter.tobytes():
                    return name
    return None


def _send(other: subprocess.Popen[bytes], texts: list[str]) -> None:
    assert other.stdin is not None
    # It ended already if nobody reads; its exit code tells why.
    with suppress(BrokenPipeError), other.stdin as pipe:
        pipe.write(json.dumps(texts).encode())
    # It reads to the end of its input, so the pipe is closed here; `communicate` must not touch it again.
    other.stdin = None


def _answer(other: subprocess.Popen[bytes]) -> str:
    try:
        out, err = other.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        other.kill()
        raise CheckError(f"the second process gave no answer within {PATIENCE} s") from error
    if other.returncode:
        raise CheckError(f"the second process failed: {_last_line(err)}", hint="run `python -m modelkit.model` by hand")
    try:
        return str(json.loads(out)["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckError(f"the second process answered {out[:80]!r}, which is no digest") from error


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "without a word"
