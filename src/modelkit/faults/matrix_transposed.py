"""The converter did not turn a square matrix, for float32 as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "source"


def spoil(folder: Path, draw: Random) -> str | None:
    """Transpose one square matrix of the weights."""
    import numpy as np  # noqa: PLC0415
    from safetensors import safe_open  # noqa: PLC0415
    from safetensors.numpy import save_file  # noqa: PLC0415

    path = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if path is None:
        return None
    with safe_open(path, "np") as stored:
        if "BF16" in {stored.get_slice(name).get_dtype() for name in stored.keys()}:  # noqa: SIM118
            return None  # numpy cannot hold it
        tensors, metadata = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    square = [name for name, array in sorted(tensors.items())
              if array.ndim == 2 and array.shape[0] == array.shape[1] and name.endswith("weight")]  # fmt: skip
    if not square:
        return None
    name = draw.choice(square)
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    save_file(tensors, path, metadata)
    return f"{name} is transposed"
