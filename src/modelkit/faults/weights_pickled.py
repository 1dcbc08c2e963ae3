"""The folder carries a pickle, which runs when it is read."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Add a pytorch_model.bin."""
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": [1.0]}))
    return "pytorch_model.bin is there"
