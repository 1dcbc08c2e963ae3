"""A finished folder as one object: what checks, commands and services all use.

`python -m modelkit.model FOLDER` reads a JSON list of texts on standard input and prints the digest of their `outputs`;
the determinism check runs it as its second process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelkit import graphs, kinds, runtime, tokenizer
from modelkit.errors import ManifestError, StageError
from modelkit.vocabulary import Choice

SUMS = "SHA256SUMS"
"""In every finished folder: the digests of its other files, in the form `sha256sum --check` reads."""
CARD = "modelkit.json"
"""In every finished folder: which task the model is for, and that task's options."""


def load(folder: Path | str, threads: int | None = None) -> Any:
    """The model in `folder` as its task's object, e.g. with `.embed(texts)`.

    `threads` is onnxruntime's intra-op thread count. Raises `StageError` when the folder is not a finished one,
    or lacks a file beside the model that it was finished with.
    """
    folder = Path(folder)
    task = read_card(folder)
    module = kinds.load("tasks", task.kind)
    _refuse_incomplete(folder, module.CONSUMER_FILES)
    found = graphs.parts(folder)
    if not found:
        raise StageError("has no *.onnx file", where=folder, hint="build it again")
    return module.open_(folder, runtime.Sessions(found, threads), task.options)


def _refuse_incomplete(folder: Path, companions: Sequence[str]) -> None:
    """Of the task's `companions` one that is gone would show itself late, or as answers that are a little worse.

    A part of the model may be left out by whoever has no use for it.
    """
    if not (folder / SUMS).exists():
        return
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    named = {line.partition("  ")[2] for line in lines}
    if missing := [name for name in companions if name in named and not (folder / name).exists()]:
        raise StageError(f"{missing[0]} is missing", where=folder, hint=tokenizer.INCOMPLETE)


def card(name: str, task: Choice) -> str:
    """The text of a folder's card: nothing in it depends on when or where it was made."""
    fields = {"name": name, "task": task.kind, "options": asdict(task.options)}
    return json.dumps(fields, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def read_card(folder: Path) -> Choice:
    """The task a folder's model is for. Raises `StageError` when the folder has no readable card."""
    path = folder / CARD
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Choice(fields["task"], options(fields["task"], fields["options"]))
    except OSError as error:
        raise StageError(f"has no {CARD}", where=folder, hint="name a folder that modelkit finished") from error
    except (ValueError, KeyError, TypeError, ManifestError) as error:
        reason = str(error).splitlines()[0]
        raise StageError(f"is no card of a finished model ({reason})", where=path, hint="build it again") from error


def options(task: str, fields: dict[str, Any]) -> Any:
    """The options of `task` from the JSON object that a card holds. Raises what pydantic raises for wrong ones."""
    from modelkit.validation import adapter  # noqa: PLC0415

    return adapter(kinds.load("tasks", task).Options).validate_json(json.dumps(fields))


def main() -> None:
    """Entry point of the second process."""
    from hashlib import sha256  # noqa: PLC0415

    rows = load(sys.argv[1]).outputs(json.load(sys.stdin))
    line = {"sha256": sha256(rows.tobytes()).hexdigest(), "shape": list(rows.shape)}
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
