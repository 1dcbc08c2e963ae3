"""The graph takes and gives what the manifest says, on paper and when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.errors import CheckError, StageError
from modelkit.vocabulary import Signature, Subject, TensorSpec, Verdict

VERSION = 1
PROMISE = "inputs and outputs have the names, order, element types and shapes of the manifest's signature"
LENGTHS = {"batch": 2, "sequence": 5}
"""Axis lengths of the trial run; an axis of another name gets 3, so that no two are alike by accident."""


@dataclass(frozen=True)
class Options:
    """No limits: a signature fits or it does not."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Read the graph's declarations, then run it once and look at what comes out."""
    from modelkit.graphs import MODEL  # noqa: PLC0415
    from modelkit.graphs.files import read_graph  # noqa: PLC0415

    path, signature = subject.artifact.folder / MODEL, subject.manifest.signature
    model = read_graph(path)
    measured = {
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "ir_version": model.ir_version,
        "inputs": [str(spec) for spec in _declared(model.graph.input)],
        "outputs": [str(spec) for spec in _declared(model.graph.output)],
    }
    problems = [
        *_differences("input", signature.inputs, _declared(model.graph.input)),
        *_differences("output", signature.outputs, _declared(model.graph.output)),
    ]
    if not problems:
        problems = _wrong_results(path, signature)
    if problems:
        return Verdict("signature", "failed", "; ".join(problems), measured)
    return Verdict("signature", "passed", "as declared, and as run", measured)


def _declared(values: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            value.name,
            _dtype(value.type.tensor_type.elem_type),
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def _dtype(elem_type: int) -> str:
    import onnx  # noqa: PLC0415

    # What is no tensor (a sequence, an optional) has no element type.
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type)) if elem_type else "undefined"


def _differences(what: str, wanted: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> list[str]:
    if (names := [spec.name for spec in found]) != (expected := [spec.name for spec in wanted]):
        return [f"the {what}s are {', '.join(names)}, the manifest says {', '.join(expected)}"]
    return [
        f"{what} {one.name} is {one}, the manifest says {other}"
        for one, other in zip(found, wanted, strict=True)
        if one != other
    ]


def _trial(inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """Ones everywhere: a legal token, a mask that keeps all, and a legal token type in every encoder."""
    import numpy as np  # noqa: PLC0415

    return {spec.name: np.ones(_shape(spec), np.dtype(spec.dtype)) for spec in inputs}


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(LENGTHS.get(axis, 3) if isinstance(axis, str) else axis for axis in spec.shape)


def _wrong_results(path: Path, signature: Signature) -> list[str]:
    from modelkit import runtime  # noqa: PLC0415

    try:
        session = runtime.Session(path, threads=1)
        results = dict(zip(session.outputs, session.run(_trial(signature.inputs)), strict=True))
    except (StageError, CheckError) as error:
        return [f"it does not run with inputs of the declared shapes: {error.message}"]
    return [
        f"output {spec.name} came out as {results[spec.name].dtype}{list(results[spec.name].shape)}, "
        f"the manifest says {spec}"
        for spec in signature.outputs
        if results[spec.name].shape != _shape(spec) or str(results[spec.name].dtype) != spec.dtype
    ]
