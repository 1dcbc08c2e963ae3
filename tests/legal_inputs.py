"""Inputs that a graph's signature allows, and which rows of its outputs mean something."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from modelkit import graphs
from modelkit.checks.signature import _declared
from modelkit.graphs.files import read_graph
from modelkit.vocabulary import Signature, TensorSpec

LENGTHS = {"batch": 3, "sequence": 7, "encoder_sequence": 7, "decoder_sequence": 1}
PADDED = ("sequence", "total_sequence", "encoder_sequence")


def signatures_of(folder: Path) -> dict[str, Signature]:
    """What each part declares."""
    return {
        part: Signature(_declared(model.graph.input), _declared(model.graph.output))
        for part, model in ((part, read_graph(path)) for part, path in graphs.parts(folder).items())
    }


def feeds(signature: Signature, vocabulary: int, past: int, seed: int) -> dict[str, np.ndarray]:
    """Legal inputs: texts of different lengths, padded on the left for models that go on writing."""
    random, long = np.random.default_rng(seed), _lengths(past)
    left = any(spec.name == "position_ids" for spec in signature.inputs)
    made: dict[str, np.ndarray] = {}
    for spec in signature.inputs:
        shape = tuple(long[axis] if isinstance(axis, str) else axis for axis in spec.shape)
        made[spec.name] = _values(spec, shape, vocabulary, random, left)
    if "position_ids" in made:
        counted = np.maximum(made["attention_mask"].cumsum(1) - 1, 0)
        made["position_ids"] = counted[:, -made["position_ids"].shape[1] :]
    return made


def _lengths(past: int) -> dict[str, int]:
    pasts = {f"past_{axis}": past for axis in LENGTHS if axis != "batch"}
    totals = {f"total_{axis}": past + length for axis, length in LENGTHS.items() if axis != "batch"}
    return {**LENGTHS, **pasts, **totals}


def _values(
    spec: TensorSpec, shape: tuple[int, ...], vocabulary: int, random: np.random.Generator, left: bool
) -> np.ndarray:
    if spec.name.endswith("attention_mask"):
        # The last token of each text is there, whatever is padded.
        padding = random.integers(0, shape[1] // 2 + 1, (shape[0], 1))
        places = np.arange(shape[1])
        return (places >= padding if left else places < shape[1] - padding).astype(np.int64)
    if spec.name.endswith("input_ids"):
        return random.integers(4, vocabulary, shape)
    if spec.dtype == "int64":
        return np.zeros(shape, np.int64)
    return random.normal(size=shape).astype(np.float32)


def meaningful(spec: TensorSpec, values: np.ndarray, feed: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows of `values` that are no padding: what stands there is anybody's choice."""
    mask = feed.get("attention_mask", feed.get("encoder_attention_mask"))
    axis = next((at for at, name in enumerate(spec.shape) if name in PADDED), None)
    if mask is None or axis is None:
        return values.reshape(-1, values.shape[-1])
    return np.moveaxis(values, axis, 1)[mask[:, -values.shape[axis] :].astype(bool)].reshape(-1, values.shape[-1])
