"""The JSON files of a model's folder: config.json and its like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelkit.errors import MissingFileError, StageError


def read_object(path: Path, *, needed: bool = False) -> dict[str, Any]:
    """The JSON object that the file `path` holds; empty when there is no such file and it is not `needed`.

    Raises `StageError` for a needed file that is not there, and for one that holds anything else.
    """
    if not path.exists():
        if needed:
            raise MissingFileError(path.name)
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path.name} is no JSON ({error})", hint="fetch the source again") from error
    if not isinstance(found, dict):
        raise StageError(f"{path.name} holds no JSON object", hint="fetch the source again")
    return found
