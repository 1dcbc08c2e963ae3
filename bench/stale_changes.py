"""The single changes that stale.py tries, each with what has to be made again because of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def nothing(project: Path) -> None:
    """The change is in the arguments of the process."""


@dataclass(frozen=True)
class Change:
    """`int8` and `int4`: letters of stages (DCQF), V for all verdicts, or names of checks."""

    what: str
    int8: str
    int4: str
    apply: Callable[[Path], object] = nothing
    arguments: tuple[str, ...] = ()
    elsewhere: bool = False
    """The project stands in another folder."""


def manifest(old: str, new: str) -> Callable[[Path], object]:
    """Replace the first `old` in the manifest; it has to be there."""
    return text("tiny.yaml", old, new)


def text(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Replace the first `old` in a file; it has to be there."""

    def apply(project: Path) -> None:
        content = (project / name).read_text("utf-8")
        if old not in content:
            raise ValueError(f"{old!r} is not in {name}")
        (project / name).write_text(content.replace(old, new, 1), "utf-8")

    return apply


def weight(project: Path) -> None:
    """Flip the lowest exponent bit of one float in the middle of the file."""
    path = project / "weights" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 8 * 4 + 2] ^= 0x80
    path.write_bytes(content)


def config(name: str, value: object) -> Callable[[Path], object]:
    """Set a key of config.json."""

    def apply(project: Path) -> None:
        path = project / "weights" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return apply


def touch(project: Path) -> None:
    """New times, same bytes."""
    for path in project.glob("weights/*"):
        path.touch()


ALL, VERDICTS = "DCQF V", "V"
READING = "any-text determinism invariance nodes order outputs padding parity retrieval saturation threads tokenizer"
"""The checks that look at texts of the corpus, or at what the model makes of them."""
TINY = "conformance/corpora/feature-extraction.jsonl"

CHANGES = (
    Change("one bit in the weights", ALL, ALL, weight),
    Change("a value in config.json", ALL, ALL, config("layer_norm_eps", 1e-6)),
    Change("a key of config.json that no graph reads", ALL, ALL, config("note", "x")),
    Change("one byte in tokenizer.json", ALL, ALL, text("weights/tokenizer.json", '"cat"', '"caT"')),
    Change("pooling", "CQF V", "CQF V", manifest("pooling: mean", "pooling: cls")),
    Change("normalize", "CQF V", "CQF V", manifest("normalize: true", "normalize: false")),
    Change("max_tokens", "CQF V", "CQF V", manifest("max_tokens: 32", "max_tokens: 16")),
    Change("name", "CQF V", "CQF V", manifest("name: tiny", "name: small")),
    Change("scheme option", "", "QF V", manifest("block: 16,", "block: 32,")),
    Change("second scheme option", "", "QF V", manifest("table_block: 32", "table_block: 16")),
    Change("scheme kind", "QF V", "", manifest("scheme: w8a8-per-token", "scheme: fp16")),
    Change("version of onnx", "CQF V", "CQF V", arguments=("onnx=99.0",)),
    Change("version of onnx-ir", "CQ", "CQ", arguments=("onnx-ir=99.0",)),
    Change("version of numpy", "CQ V", "CQ V", arguments=("numpy=99.0",)),
    Change("version of safetensors", "C", "C", arguments=("safetensors=99.0",)),
    Change("version of onnxruntime", VERDICTS, VERDICTS, arguments=("onnxruntime=99.0",)),
    Change("version of tokenizers", VERDICTS, VERDICTS, arguments=("tokenizers=99.0",)),
    Change("version of pillow", VERDICTS, VERDICTS, arguments=("pillow=99.0",)),
    Change("version of hypothesis", VERDICTS, VERDICTS, arguments=("hypothesis=99.0",)),
    Change("version of jinja2", VERDICTS, VERDICTS, arguments=("jinja2=99.0",)),
    Change("version of the convert stage", "C", "C", arguments=("modelkit.stages.convert:VERSION=99",)),
    Change("version of the direct exporter", "C", "C", arguments=("modelkit.exporters.direct:VERSION=99",)),
    Change("version of one scheme", "", "Q", arguments=("modelkit.schemes.w4a8_per_token:VERSION=99",)),
    Change("version of the finalize stage", "F", "F", arguments=("modelkit.stages.finalize:VERSION=99",)),
    Change("version of one check", "parity", "parity", arguments=("modelkit.checks.parity:VERSION=99",)),
    Change("code of the project's own check", "own", "own",
           text("conformance/checks/own.py", "LARGEST = 12", "LARGEST = 13")),
    Change("a looser limit", "", "parity", manifest("cosine_mean: 0.5", "cosine_mean: 0.4")),
    Change("a limit that now fails", "", "parity", manifest("cosine_mean: 0.5", "cosine_mean: 0.9999")),
    Change("budget", "budget own", "", manifest("budget: 1 MB", "budget: 2 MB")),
    Change("a budget that now fails", "budget own", "", manifest("budget: 1 MB", "budget: 10 kB")),
    Change("an axis of the signature", "signature", "signature",
           manifest("[batch, sequence, 32]", "[batch, tokens, 32]")),
    Change("a text of the corpus", READING, READING, text(TINY, "the", "cat")),
    Change("where it has to run", *["portability"] * 2,
           manifest("task:", "runtimes: [onnxruntime, onnxruntime-web]\ntask:")),
    Change("another processor", VERDICTS, VERDICTS,
           arguments=('processor={"machine": "x86_64", "cores": 2, "features": []}',)),
    Change("licence", "", "", manifest("Apache-2.0", "MIT")),
    Change("a comment", "", "", manifest("task:", "# a comment\ntask:")),
    Change("channel", "", "", manifest("channel: prod", "channel: dev")),
    Change("reason of a looser limit", "", "", manifest("A seeded model", "A small seeded model")),
    Change("times of the source's files", "", "", touch),
    Change("the project's folder", "", "", elsewhere=True),
)  # fmt: skip
