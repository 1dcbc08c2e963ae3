"""One question to the reference environment: a process of its own, files in, files out, no network."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelkit.errors import StageError
from modelkit.reference import environment

ENTRY = Path(__file__).with_name("inside_entry.py")


def answer(script: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """What `inside_<script>.py` answers to `request`, both of them JSON.

    Raises `StageError` with the last line that the process said on its standard error; the rest is in its `log`, and in
    a file beside the environment.
    """
    interpreter = environment.python()
    with tempfile.TemporaryDirectory(prefix="modelkit-") as scratch:
        asked, answered = Path(scratch, "request.json"), Path(scratch, "answer.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        command: list[str | Path] = [interpreter, "-I", ENTRY, ENTRY.with_name(f"inside_{script}.py"), asked, answered]
        # Whatever a library in there asks, nobody is there to answer.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd=scratch, env=_surroundings(scratch)
        )
        said = done.stderr.decode(errors="replace")
        if done.returncode or not answered.exists():
            raise StageError(_last_line(said, done.returncode), hint=_kept(script, said), log=said)
        answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
        return answer


def _surroundings(scratch: str) -> dict[str, str]:
    """No settings of the user's reach it: the same request has the same answer everywhere."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": scratch, "HOME": scratch}
    return {**kept, **offline, "OMP_NUM_THREADS": "1", "TMPDIR": scratch, "LC_ALL": "C.UTF-8"}


def _last_line(said: str, code: int) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else f"the reference process ended with exit code {code} and without a word"


def _kept(script: str, said: str) -> str:
    log = environment.home() / f"{script}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(said, encoding="utf-8")
    except OSError as error:
        return f"its log could not be kept ({error.strerror})"
    return f"the whole log is {log}"
