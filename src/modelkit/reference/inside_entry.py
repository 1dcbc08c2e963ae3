"""Runs inside the reference environment, where modelkit is not: `inside_entry.py SCRIPT REQUEST ANSWER`.

`SCRIPT` has a function `answer(request) -> dict`. Its last word on standard error is what the user reads.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any


def main(script: str, asked: str, answered: str) -> None:
    """Answer one request."""
    sys.addaudithook(refuse_network)
    answer = runpy.run_path(script)["answer"](json.loads(Path(asked).read_text(encoding="utf-8")))
    Path(answered).write_text(json.dumps(answer), encoding="utf-8")


def refuse_network(event: str, details: tuple[Any, ...]) -> None:  # noqa: ARG001
    """Whatever a library would like to fetch: everything it may use is in the request."""
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise PermissionError("the reference environment does not use the network")


if __name__ == "__main__":
    main(*sys.argv[1:])
