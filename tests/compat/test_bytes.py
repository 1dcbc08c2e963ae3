"""The same versions give the same bytes, on every machine and in every later modelkit.

`bytes.json` holds what each exporter and scheme made of the stand-in when its VERSION was last raised. VERSION is in
the key of everything that is stored: bytes that change without it would be served from old stores as if they were new.
When bytes change on purpose, raise the VERSION and run `python tests/compat/test_bytes.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

# `python tests/compat/test_bytes.py` finds them here; pytest has them on its path already.
sys.path.append(str(Path(__file__).parents[1]))

import small_models
import stand_ins
from modelkit import kinds
from modelkit.stages.job import tool

RECORD = Path(__file__).with_name("bytes.json")
DEPENDS_ON = dict.fromkeys(("int8-dynamic", "int8-static", "matmul-nbits"), ("onnxruntime",))
"""Scheme -> tools whose own algorithm decides the bytes; they are compared between equal versions alone."""
# More than one set of options where options take other paths through the code.
CASES: dict[str, tuple[str, dict[str, Any]]] = {kind: (kind, {}) for kind in kinds.names("schemes")} | {
    "w8a8-per-token with 16-bit activations": ("w8a8-per-token", {"activations_16bit": ("*.value.weight",)}),
    "w4a8-per-token with larger blocks": ("w4a8-per-token", {"block": 32}),
    "w8a8-per-token, calibrated": ("w8a8-per-token", {"smoothing": 0.5, "rounding": "gptq"}),
    "w4a8-per-token, calibrated": ("w4a8-per-token", {"smoothing": 0.5, "rounding": "gptq"}),
    "w4a8-per-token with 8-bit exceptions": ("w4a8-per-token", {"weights_8bit": ("*.dense.weight",)}),
}


@cache
def made() -> dict[str, dict[str, Any]]:
    """Case -> versions and digests, as they are now."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The larger vocabulary makes the word table one that is worth quantizing.
        source = stand_ins.bert(folder / "source", seed=0, vocab_size=600)
        converted = small_models.exported(source, folder / "converted")
        given = {"source": digest(source / "model.safetensors"), "exporter": kinds.load("exporters", "direct").VERSION}
        return {
            case: {
                **given,
                "scheme": kinds.load("schemes", kind).VERSION,
                "tools": {name: tool(name) for name in DEPENDS_ON.get(kind, ())},
                "sha256": digest(finished(converted, folder / str(number), kind, options)),
            }
            for number, (case, (kind, options)) in enumerate(CASES.items())
        }


def finished(converted: Path, folder: Path, kind: str, options: dict[str, Any]) -> Path:
    return small_models.finished(
        small_models.quantized(converted, folder / "quantized", kind, **options), folder / "finished"
    )


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def recorded() -> dict[str, dict[str, Any]]:
    return dict(json.loads(RECORD.read_text(encoding="utf-8")))


@pytest.mark.parametrize("case", CASES)
def test_bytes_change_only_with_their_version(case: str) -> None:
    was, now = recorded().get(case), made()[case]
    assert was is not None, "no record yet: run `python tests/compat/test_bytes.py`"
    assert now["source"] == was["source"], "the stand-in itself changed: run `python tests/compat/test_bytes.py`"
    if now["tools"] != was["tools"]:
        pytest.skip(f"recorded with {was['tools']}, here is {now['tools']}")
    if (now["exporter"], now["scheme"]) == (was["exporter"], was["scheme"]):
        kind = CASES[case][0]
        assert now["sha256"] == was["sha256"], (
            f"the bytes changed and no VERSION did: raise VERSION in schemes/{kind.replace('-', '_')}.py (or in "
            "exporters/direct.py, if it was the graph), then run `python tests/compat/test_bytes.py`"
        )
    else:
        pytest.fail("a VERSION was raised: run `python tests/compat/test_bytes.py` to record its bytes")


def test_nothing_is_recorded_that_is_no_longer_made() -> None:
    assert set(recorded()) == set(CASES)


if __name__ == "__main__":
    RECORD.write_text(json.dumps(made(), indent=2) + "\n", encoding="utf-8")
