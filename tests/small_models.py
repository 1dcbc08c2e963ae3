"""What several tests do with the models of `stand_ins`: export, quantize, finish, run; and graphs of a few nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from modelkit import kinds, runtime
from modelkit.exporters import direct
from modelkit.graphs import files
from modelkit.graphs.float64 import Activations
from modelkit.graphs.tape import Drawn, Tape, model_of, typed
from modelkit.sources import path
from modelkit.tasks import feature_extraction
from modelkit.vocabulary import Choice, Manifest, Source, Variant

FOR_NARROW_MODELS = {"w4a8-per-token": {"table_block": 32}, "matmul-nbits": {"block": 16}}
"""Scheme -> options without which the stand-ins are too narrow for it."""


def manifest_of(**text: Any) -> Manifest:
    """A manifest as `manifest.load` would give it; `text` are the options of that name."""
    text = {"max_tokens": 32, **text}
    return Manifest(
        path=Path("tiny.yaml"),
        name="tiny",
        license="Apache-2.0",
        task=Choice("feature-extraction", feature_extraction.Options(feature_extraction.Text(**text))),
        source=Source(Choice("path", path.Options("weights"))),
        export=Choice("direct", direct.Options()),
        signatures={},
        variants={"fp32": Variant("fp32", Choice("fp32", kinds.load("schemes", "fp32").Options()), "dev")},
    )


def exported(source: Path, into: Path, **text: Any) -> Path:
    """The converted model of `source` in the new folder `into`."""
    into.mkdir(parents=True)
    direct.export(manifest_of(**text), source, into, direct.Options())
    return into


def quantized(source: Path, into: Path, kind: str, **options: Any) -> Path:
    """The model of `source` after the scheme `kind`, in the new folder `into`."""
    into.mkdir(parents=True)
    scheme = kinds.load("schemes", kind)
    chosen = scheme.Options(**{**FOR_NARROW_MODELS.get(kind, {}), **options})
    activations = [calibrated_on(source)] if getattr(chosen, "calibrates", False) else []
    scheme.quantize(source, into, chosen, *activations)
    return into


def calibrated_on(source: Path, examples: int = 12) -> Activations:
    """What the model in `source` computes of a few examples without padding."""
    inputs = files.load(source).graph.inputs
    return Activations(source / files.MODEL, [example_of(inputs, number) for number in range(examples)])


def example_of(inputs: Sequence[ir.Value], number: int) -> dict[str, np.ndarray]:
    """One row of `4 + number` tokens for each of `inputs`; of pixels and other floats, normally distributed ones."""
    tokens, random = feed(1, 4 + number, seed=number), np.random.default_rng(number)
    return {
        value.name: random.standard_normal([size if isinstance(size, int) else 1 for size in value.shape], np.float32)
        if value.dtype == ir.DataType.FLOAT
        else tokens[value.name]
        for value in inputs
    }


def finished(source: Path, into: Path) -> Path:
    """The finished model of `source`: the path of its file in the new folder `into`."""
    into.mkdir(parents=True)
    files.finish(source, into)
    return into / files.MODEL


def digests(folder: Path) -> dict[str, str]:
    """Name -> sha256 of every file below `folder`."""
    found = sorted(at for at in folder.rglob("*") if at.is_file())
    return {at.relative_to(folder).as_posix(): sha256(at.read_bytes()).hexdigest() for at in found}


def feed(batch: int = 5, sequence: int = 9, words: int = 64, seed: int = 3) -> dict[str, np.ndarray]:
    """Token ids of texts of different lengths, padded with zeros."""
    random = np.random.default_rng(seed)
    mask = (np.arange(sequence) < random.integers(1, sequence + 1, (batch, 1))).astype(np.int64)
    ids = random.integers(0, words, (batch, sequence))
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def run(path: Path, inputs: Mapping[str, np.ndarray], threads: int = 1) -> list[np.ndarray]:
    """All outputs of the model at `path`."""
    return runtime.Session(path, threads).run(inputs)


def plain_run(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The same with every optimisation of onnxruntime off: node by node, as the file has it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return list(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, dict(inputs)))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of each row of `one` with its row in `other`."""
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / lengths


@dataclass(frozen=True)
class Drawing:
    """A graph being drawn into `folder`."""

    tape: Tape
    x: ir.Value


def graph(
    folder: Path, shape: tuple[int | str, ...], draw: Callable[[Drawing], ir.Value], out: tuple[int | str, ...]
) -> Path:
    """A model with the float32 input `x` and one output `y`, which `draw` records."""
    folder.mkdir(parents=True)
    tensors = files.TensorFile(folder)
    tape, x = Tape(tensors), typed("x", "float32", shape)
    y = draw(Drawing(tape, x))
    y.name, y.dtype, y.shape = "y", ir.DataType.FLOAT, ir.Shape(out)
    files.save(model_of(tape, "drawn", Drawn([x], [y])), tensors)
    return folder
