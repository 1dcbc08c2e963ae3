"""Writes pickled.json: files that torch itself saved, and what they hold. Needs torch 2.

python tests/references/record_pickled.py
"""

from __future__ import annotations

import base64
import io
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def state() -> OrderedDict[str, Any]:
    """Every element type and every kind of view that a checkpoint has."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(OrderedDict(first=torch.nn.Linear(3, 2), second=torch.nn.LayerNorm(2)))
    held = module.state_dict()  # with the attribute `_metadata`
    flat = torch.randn(24)
    held["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
    held["transposed"] = torch.randn(3, 4).T
    held["head"], held["tail"] = flat[:12].view(3, 4), flat[12:].view(2, 6)
    held["tied"] = held["head"]
    held["columns"] = flat.view(4, 6)[:, 1:3]
    held["spread"] = torch.randn(1, 3).expand(4, 3)
    held["scalar"], held["empty"] = torch.tensor(2.5), torch.zeros(0, 3)
    for name in ("float16", "bfloat16", "float64"):
        held[name] = torch.randn(2, 3).to(getattr(torch, name))
    held["position_ids"] = torch.arange(4)
    return held


def saved(**options: Any) -> str:
    """The bytes of the file, in base64."""
    file = io.BytesIO()
    torch.save(state(), file, **options)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    recorded = {
        "torch": torch.__version__,
        "held": {
            name: {"shape": list(value.shape), "values": value.detach().float().flatten().tolist()}
            for name, value in state().items()
        },
        "files": {
            "zip": saved(),
            "zip, protocol 4": saved(pickle_protocol=4),
            "before 1.6": saved(_use_new_zipfile_serialization=False),
        },
    }
    (HERE / "pickled.json").write_text(json.dumps(recorded, indent=1) + "\n")
