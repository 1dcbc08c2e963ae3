"""The sums beside the files are those of another build."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"


def spoil(folder: Path, draw: Random) -> str | None:
    """Change one digit of one sum."""
    path = folder / "SHA256SUMS"
    lines = path.read_text(encoding="utf-8").splitlines()
    place = draw.randrange(len(lines))
    lines[place] = ("1" if lines[place][0] == "0" else "0") + lines[place][1:]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"the sum of {lines[place].split()[1]} is wrong"
