"""What a scheme may be told to learn from activations; it then needs texts to calibrate on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Part of the options of a scheme."""

    smoothing: float = 0.0
    """How much of an activation's range moves into the weights that it is multiplied with, from 0 to 1: alpha of
    SmoothQuant (arXiv:2211.10438). It costs a multiplication of the activation; what follows Gelu or Relu stays."""
    rounding: Literal["nearest", "gptq"] = "nearest"
    """Each weight to the nearest integer, or so that errors cancel out on the calibration texts (GPTQ,
    arXiv:2210.17323), which costs nothing but time to build."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing <= 1:
            raise ValueError(f"smoothing is a share from 0 to 1, not {self.smoothing}")

    @property
    def calibrates(self) -> bool:
        """Whether the scheme needs activations."""
        return self.smoothing > 0 or self.rounding != "nearest"
