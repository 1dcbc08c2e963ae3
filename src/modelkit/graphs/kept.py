"""Activations that are asked for more than once: each value is computed once and then read from the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from modelkit.graphs.float64 import Activations, Float64s


class Kept:
    """As `Activations`, in any order."""

    def __init__(self, walk: Callable[[], Activations], folder: Path) -> None:
        """`walk` begins anew at the first node; `folder` is empty, and takes 8 bytes per number."""
        self._walk, self._folder = walk, folder
        self._begun = walk()
        self._files: dict[str, Path | None] = {}

    def of(self, value: str) -> Float64s | None:
        """As `Activations.of`."""
        if value not in self._files:
            self._files[value] = self._computed(value)
        file = self._files[value]
        return None if file is None else np.load(file, mmap_mode="r")

    def _computed(self, value: str) -> Path | None:
        try:
            found = self._begun.of(value)
        except StopIteration:  # what comes before the last value that was asked for has been forgotten
            self._begun = self._walk()
            found = self._begun.of(value)
        if found is None:
            return None
        file = self._folder / f"{len(self._files)}.npy"
        np.save(file, found)
        return file
