"""The graph takes and gives what the manifest says, on paper and when it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import CheckError, StageError
from modelkit.vocabulary import Signature, Subject, TensorSpec, Verdict

if TYPE_CHECKING:
    from modelkit.runtime import Session

VERSION = 3
PROMISE = "inputs and outputs have the names, order, element types and shapes of the manifest's signature"
TRIALS = ({"batch": 2, "sequence": 5}, {"batch": 1, "sequence": 4})
"""Axis lengths of the trial runs; axes of other names get lengths of their own in each, so that no two are alike by
accident. Two runs, because a graph that kept the lengths it was traced with runs with one of them."""
OTHERS_FROM = (6, 3)
"""The length of the first other axis, by name, in each run; the next is one longer."""


@dataclass(frozen=True)
class Options:
    """No limits of its own. `opset` (of ONNX's own domain) and `ir_version`: the newest that the manifest allows."""

    opset: int | None = None
    ir_version: int | None = None


def check(subject: Subject, limits: Options) -> Verdict:
    """Read each graph's declarations, then run it twice and look at what comes out."""
    from modelkit.graphs import parts  # noqa: PLC0415

    found, wanted = parts(subject.artifact.folder), subject.manifest.signatures
    if found.keys() != wanted.keys():
        sentence = f"the parts are {', '.join(found) or 'none'}, the manifest says {', '.join(sorted(wanted))}"
        return Verdict("signature", "failed", sentence)
    measured, problems = {}, []
    for part, path in found.items():
        measured[part], told = _examined(path, wanted[part])
        told = [*_too_new(measured[part], limits), *told]
        problems += [f"{part}: {problem}" for problem in told] if len(found) > 1 else told
    if problems:
        return Verdict("signature", "failed", "; ".join(problems), measured, asdict(limits))
    return Verdict("signature", "passed", "as declared, and as run", measured, asdict(limits))


def _too_new(measured: Mapping[str, Any], limits: Options) -> Iterator[str]:
    if limits.opset is not None and (opset := measured.get("opset", {}).get("ai.onnx", 0)) > limits.opset:
        yield f"the opset is {opset}, the manifest allows {limits.opset}"
    if limits.ir_version is not None and (version := measured.get("ir_version", 0)) > limits.ir_version:
        yield f"the IR version is {version}, the manifest allows {limits.ir_version}"


def _examined(path: Path, signature: Signature) -> tuple[dict[str, Any], list[str]]:
    """What the graph declares, and what is wrong with it."""
    from modelkit.graphs.files import read_graph  # noqa: PLC0415

    try:
        model = read_graph(path)
    except (StageError, OSError) as error:
        return {}, [f"{path.name} {getattr(error, 'message', 'cannot be read')}"]
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
    return measured, problems or _trials(path, signature)


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


def _trials(path: Path, signature: Signature) -> list[str]:
    """A model that does not load or run on legal input is a broken promise, not a check that could not run."""
    from modelkit import runtime  # noqa: PLC0415

    try:
        session = runtime.Session(path, threads=1)
        runs = (_wrong_results(session, signature, number) for number in range(len(TRIALS)))
        return next(filter(None, runs), [])
    except (StageError, CheckError) as error:
        return [f"it does not run with inputs of the declared shapes: {error.message}"]


def _wrong_results(session: Session, signature: Signature, number: int) -> list[str]:
    import numpy as np  # noqa: PLC0415

    lengths = _lengths(signature, number)
    # Ones everywhere: a legal token, a mask that keeps all, and a legal token type in every encoder. A switch, such as
    # that between the first step and the later ones, is on in one run and off in the other.
    values = {spec.name: number == 0 if spec.dtype == "bool" else 1 for spec in signature.inputs}
    feed = {spec.name: np.full(_shape(spec, lengths), values[spec.name], np.dtype(spec.dtype))
            for spec in signature.inputs}  # fmt: skip
    results = dict(zip(session.outputs, session.run(feed), strict=True))
    return [
        f"output {spec.name} came out as {results[spec.name].dtype}{list(results[spec.name].shape)}, "
        f"the manifest says {spec}"
        for spec in signature.outputs
        if results[spec.name].shape != _shape(spec, lengths) or str(results[spec.name].dtype) != spec.dtype
    ]


def _lengths(signature: Signature, number: int) -> dict[str, int]:
    """Of every named axis in one trial run, but for totals, which follow from two others."""
    named = {axis for spec in (*signature.inputs, *signature.outputs) for axis in spec.shape if isinstance(axis, str)}
    named |= {part for axis in named if (rest := _parts(axis)) for part in rest}
    others = sorted(axis for axis in named - TRIALS[number].keys() if not _parts(axis))
    return {**TRIALS[number], **{axis: OTHERS_FROM[number] + place for place, axis in enumerate(others)}}


def _parts(axis: str) -> tuple[str, str] | None:
    """By the naming of caches, a total is the past and the present together."""
    rest = axis.removeprefix("total_")
    return (f"past_{rest}", rest) if rest != axis else None


def _shape(spec: TensorSpec, lengths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(_length(axis, lengths) if isinstance(axis, str) else axis for axis in spec.shape)


def _length(axis: str, lengths: Mapping[str, int]) -> int:
    return sum(lengths[part] for part in _parts(axis) or (axis,))
