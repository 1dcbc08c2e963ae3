"""The model file ends early."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Cut the last part of a model file off."""
    path = draw.choice(sorted(folder.glob("*.onnx*")))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - size // 50)
    return f"{path.name} lost its last {size // 50} bytes"
