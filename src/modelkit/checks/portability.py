"""The artifact runs where its manifest says that it has to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import StageError
from modelkit.vocabulary import Manifest, Subject, Verdict

if TYPE_CHECKING:
    import onnx

    from modelkit.kernels import Runtime

VERSION = 1
PROMISE = "every runtime that the manifest names has the opset, the element types and a kernel for every node"
INSTALLED = "onnxruntime"
"""The runtime that is here, and is asked itself; the others are judged by what their release is known to have."""
WORST = 5

_Problem = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """No limits: a runtime has an operator or it has not."""


def reads(manifest: Manifest) -> dict[str, Any]:
    """Where it has to run, and what is known of these runtimes."""
    from modelkit import kernels  # noqa: PLC0415
    from modelkit.digests import digest_file  # noqa: PLC0415

    known = {path.name: digest_file(path).sha256 for path in (Path(kernels.__file__), kernels.FILE)}
    return {"runtimes": list(manifest.runtimes), **known}


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Load each part in the runtime that is here, and compare it with what the others have."""
    from modelkit import kernels, runtime  # noqa: PLC0415
    from modelkit.graphs import parts  # noqa: PLC0415
    from modelkit.graphs.files import read_graph  # noqa: PLC0415

    names = subject.manifest.runtimes
    others = [kernels.of(name) for name in names if name != INSTALLED]
    releases = {**({INSTALLED: runtime.version()} if INSTALLED in names else {}), **{r.name: r.release for r in others}}
    operators: set[str] = set()
    problems: list[_Problem] = []
    for part, path in parts(subject.artifact.folder).items():
        try:
            model = read_graph(path)
        except (StageError, OSError) as error:
            told = error.message if isinstance(error, StageError) else "cannot be read"
            return Verdict("portability", "failed", f"{path.name} {told}")
        operators |= {_called(node) for node, _ in _nodes(model)}
        found = [*_refused(path)] if INSTALLED in names else []
        found += [problem for one in others for problem in _lacks(one, model)]
        problems += [{"part": part, **problem} for problem in found]
    measured = {"runtimes": releases, "operators": sorted(operators), "problems": len(problems)}
    if not problems:
        sentence = f"runs in {', '.join(f'{name} {release}' for name, release in releases.items())}"
        return Verdict("portability", "passed", sentence, measured)
    rest = f" (and {len(problems) - WORST} more)" if len(problems) > WORST else ""
    sentence = "; ".join(problem["problem"] for problem in problems[:WORST]) + rest
    return Verdict("portability", "failed", sentence, measured, worst=tuple(problems[:WORST]))


def _refused(path: Path) -> Iterator[_Problem]:
    from modelkit import runtime  # noqa: PLC0415

    try:
        runtime.Session(path, threads=1, sparing=True)
    except StageError as error:
        yield {"runtime": INSTALLED, "problem": f"{INSTALLED} {runtime.version()}: {error.message}"}


def _lacks(runtime: Runtime, model: onnx.ModelProto) -> Iterator[_Problem]:
    """What of `model` the runtime does not have: versions, element types, operators."""
    who = f"{runtime.name} {runtime.release}"

    def told(problem: str, **details: Any) -> _Problem:
        return {"runtime": runtime.name, "problem": problem, **details}

    opset = _opsets(model.opset_import).get("", 0)
    if opset > runtime.opset:
        yield told(f"the model has opset {opset}, {who} reads {runtime.opset} and older ones")
    if model.ir_version > runtime.ir_version:
        yield told(f"the model has IR version {model.ir_version}, {who} reads {runtime.ir_version} and older ones")
    for what, name in _types(model):
        if name in runtime.lacks:
            yield told(f"{what} has the element type {name}, which {who} does not know", type=name)
    own = {(function.domain, function.name) for function in model.functions}
    for node, opsets in _nodes(model):
        if (node.domain, node.op_type) not in own and not runtime.runs(node, opsets):
            version = opsets.get("" if node.domain == "ai.onnx" else node.domain, 1)
            name = node.name or next(iter(node.output), "")
            problem = f"{who} has no kernel for {_called(node)} (version {version}), which node '{name}' asks for"
            yield told(problem, node=name, operator=_called(node))


def _called(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, Mapping[str, int]]]:
    """Every node, those in bodies and functions too, with the versions of the domains that it can call."""
    from modelkit.graphs.files import all_graphs  # noqa: PLC0415

    for body in (model.graph, *model.functions):
        opsets = _opsets(getattr(body, "opset_import", model.opset_import))
        for graph in all_graphs(body):
            yield from ((node, opsets) for node in graph.node)


def _opsets(imports: Any) -> dict[str, int]:
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in imports}


def _types(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Of everything that says its element type: what it is, and the type's name."""
    import onnx  # noqa: PLC0415

    from modelkit.graphs.files import all_graphs  # noqa: PLC0415

    for body in (model.graph, *model.functions):
        for graph in all_graphs(body):
            for what in ("input", "output", "value_info"):
                for value in getattr(graph, what) if isinstance(graph, onnx.GraphProto) else ():
                    yield f"{what} {value.name}", _type_name(value.type.tensor_type.elem_type)
            for tensor in getattr(graph, "initializer", ()):
                yield f"tensor {tensor.name}", _type_name(tensor.data_type)
            for node in graph.node:
                for attribute in node.attribute:
                    if attribute.HasField("t"):
                        yield f"tensor of node {node.name}", _type_name(attribute.t.data_type)
                    elif attribute.name == "to" and node.op_type == "Cast":
                        yield f"output of node {node.name}", _type_name(attribute.i)


def _type_name(number: int) -> str:
    import onnx  # noqa: PLC0415

    return str(onnx.TensorProto.DataType.Name(number))
