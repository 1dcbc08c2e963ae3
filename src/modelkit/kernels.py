"""Which operators released runtimes have kernels for, so that a graph can be judged for a runtime that is not here.

`kernels.json` is what onnxruntime's own registry says of the release's CPU build, and onnxruntime-web's WebAssembly
build of that release has the same kernels, but not all element types; `tests/e2e/test_other_runtimes.py` makes the file
again from the released wheel, and loads models in the released runtimes. `python -m modelkit.kernels` writes the file
for the onnxruntime it finds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit import runtime
from modelkit.errors import StageError

if TYPE_CHECKING:
    import onnx

FILE = Path(__file__).with_name("kernels.json")
OLDEST_OPSET, OLDEST_IR = 7, 3
"""The first that onnxruntime reads, https://onnxruntime.ai/docs/reference/compatibility.html."""
LATEST = 2**31 - 1
"""The last version of a kernel that has no last version yet."""
OWN = {"", "ai.onnx"}
"""Two names of one domain."""
LACKING: Mapping[str, frozenset[str]] = {
    "onnxruntime-web": frozenset({"BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"})
}
"""Runtime -> element types that its interface has no name for: `unsupported data type` is what it says of them."""
WITHOUT_KERNEL = {"Constant"}
"""It becomes a stored tensor when the model is loaded."""


@dataclass(frozen=True)
class Runtime:
    """One released runtime."""

    name: str
    release: str
    opset: int
    """The newest of ONNX's own domain that it reads."""
    ir_version: int
    """The newest that it reads."""
    kernels: Mapping[str, Mapping[str, Sequence[Sequence[int]]]]
    """Domain -> operator -> first and last version of each kernel."""
    lacks: frozenset[str]
    """ONNX element types that it does not know."""

    def runs(self, node: onnx.NodeProto, opsets: Mapping[str, int]) -> bool:
        """Whether there is a kernel for `node` in a graph that imports `opsets`, or the operator is made of others."""
        domain = "" if node.domain in OWN else node.domain
        ranges = self.kernels.get(domain, {}).get(node.op_type, ())
        since, is_function = _schema(node.op_type, domain, opsets.get(domain, 1))
        found = any(_fits(since, first, last) for first, last in ranges)
        return found or (domain == "" and (is_function or node.op_type in WITHOUT_KERNEL))


def of(name: str) -> Runtime:
    """The release of `name` that the table is of."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    lacks = LACKING.get(name, frozenset())
    return Runtime(name, table["release"], table["opset"], table["ir_version"], table["kernels"], lacks)


def _fits(since: int, first: int, last: int) -> bool:
    """As onnxruntime matches (KernelRegistry::VerifyKernelDef): a kernel without an end is for its own version only, as
    a later one may mean something else."""
    return first == since or (last != LATEST and first < since <= last)


@cache
def _schema(op_type: str, domain: str, opset: int) -> tuple[int, bool]:
    """The version of ONNX in which the operator got its meaning at `opset`, and whether ONNX defines it by others."""
    import onnx  # noqa: PLC0415

    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return 1, False  # onnxruntime's own operators have one version
    # The stubs that onnx comes with do not know these two.
    is_function = schema.has_function or schema.has_context_dependent_function  # type: ignore[attr-defined]
    return schema.since_version, bool(is_function)


def installed() -> dict[str, Any]:
    """The table of the onnxruntime that is installed here: what it registers, and what it loads when it is tried."""
    return {
        "release": runtime.version(),
        "opset": _newest(OLDEST_OPSET, lambda number: _loads(opset=number)),
        "ir_version": _newest(OLDEST_IR, lambda number: _loads(ir_version=number)),
        # Kernels of this domain are onnxruntime's own doing: no model may ask for them.
        "kernels": {domain: names for domain, names in runtime.kernels().items() if domain != "com.microsoft.nchwc"},
    }


def _newest(oldest: int, loads: Any) -> int:
    number = oldest
    while loads(number + 1):
        number += 1
    return number


def _loads(opset: int = OLDEST_OPSET, ir_version: int = OLDEST_IR) -> bool:
    from onnx import TensorProto, helper  # noqa: PLC0415

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tried", ends[:1], ends[1:])
    made = helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)])
    try:
        runtime.Session(made.SerializeToString())
    except StageError:
        return False
    return True


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    """JSON with one line for each operator, so that what a release brings can be read in a comparison."""
    yield "{"
    yield from (f' "{key}": {json.dumps(table[key])},' for key in ("release", "opset", "ir_version"))
    yield ' "kernels": {'
    domains = list(table["kernels"].items())
    for number, (domain, names) in enumerate(domains, 1):
        yield f'  "{domain}": {{'
        yield ",\n".join(f'   "{name}": {json.dumps(ranges)}' for name, ranges in names.items())
        yield "  }" + ("," if number < len(domains) else "")
    yield " }"
    yield "}"


def text() -> str:
    """What `kernels.json` holds for the onnxruntime that is installed here."""
    return "\n".join(_lines(installed())) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(text())
