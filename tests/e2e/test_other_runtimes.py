"""What modelkit knows of other runtimes, judged by them: the released onnxruntime that the table is of, and
onnxruntime-web under node, in that release and in a newer one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

import other_runtimes
import small_models
import stand_ins
from modelkit import kernels, kinds, runtime
from modelkit.checks import portability
from modelkit.vocabulary import Artifact
from subjects import artifact, drawn, fake, info

pytestmark = pytest.mark.runtimes
FOLDER = Path(__file__).parents[2] / "build" / "other-runtimes"
"""Inside the checkout, so that a second run downloads nothing."""
SCHEMES = kinds.names("schemes")
EXACT = {"int8-dynamic": {"reduce_range": True}}
"""Scheme -> options without which what it computes depends on the processor (see the check `saturation`)."""
PACKAGES = (other_runtimes.WEB, other_runtimes.NEWER)
FEED = small_models.feed()


@pytest.fixture(scope="module")
def web() -> other_runtimes.Web:
    FOLDER.mkdir(parents=True, exist_ok=True)
    return other_runtimes.web(FOLDER)


@pytest.fixture(scope="module")
def oldest() -> Path:
    FOLDER.mkdir(parents=True, exist_ok=True)
    return other_runtimes.oldest(FOLDER)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scheme -> the finished stand-in, with a table large enough to be quantized."""
    folder = tmp_path_factory.mktemp("made")
    converted = small_models.exported(stand_ins.bert(folder / "source", vocab_size=600), folder / "converted")
    small = {
        kind: small_models.quantized(converted, folder / kind / "small", kind, **EXACT.get(kind, {}))
        for kind in SCHEMES
    }
    return {kind: small_models.finished(path, folder / kind / "finished") for kind, path in small.items()}


def one(folder: Path, op_type: str = "Identity", **fields: Any) -> Artifact:
    """A model of one node."""
    dtype, domain, opset = fields.get("dtype", TensorProto.FLOAT), fields.get("domain", ""), fields.get("opset", 20)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    node = helper.make_node(op_type, ["x"], ["y"], "asked", domain=domain)
    return drawn(folder, [node], [info("x", dtype)], [info("y", dtype)], opset_imports=opsets,
                 ir_version=fields.get("ir_version", 9))  # fmt: skip


FOREIGN: dict[str, dict[str, Any]] = {
    "opset": {"op_type": "Relu", "opset": kernels.of("onnxruntime-web").opset + 1},
    "ir": {"ir_version": kernels.of("onnxruntime-web").ir_version + 1},
    "bfloat16": {"dtype": TensorProto.BFLOAT16},
    "float8": {"dtype": TensorProto.FLOAT8E5M2},
    "kernel": {"op_type": "Rfft", "domain": "com.microsoft"},
    "domain": {"op_type": "Gadget", "domain": "own"},
}


def accepts(made: Artifact) -> bool:
    """Whether the check lets it through for onnxruntime-web."""
    subject = fake(artifact=made)
    declared = replace(subject.manifest, runtimes=("onnxruntime-web",))
    return portability.check(replace(subject, manifest=declared), portability.Options()).outcome == "passed"


def test_the_table_is_what_the_released_onnxruntime_registers(oldest: Path) -> None:
    code = "import sys; from modelkit import kernels; sys.stdout.write(kernels.text())"
    assert other_runtimes.in_process(oldest, code) == kernels.FILE.read_text()


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("package", PACKAGES)
def test_an_artifact_answers_in_onnxruntime_web_as_it_does_here(
    web: other_runtimes.Web, made: dict[str, Path], tmp_path: Path, package: str, kind: str
) -> None:
    assert accepts(artifact(made[kind].parent))
    theirs = web.run(package, made[kind], FEED, tmp_path)
    session = runtime.Session(made[kind], 1)
    ours = dict(zip(session.outputs, session.run(FEED), strict=True))
    assert theirs.keys() == ours.keys()
    for name, array in ours.items():
        assert small_models.cosines(theirs[name], array).min() > 0.999


@pytest.mark.parametrize("kind", SCHEMES)
def test_an_artifact_loads_in_the_released_onnxruntime(oldest: Path, made: dict[str, Path], kind: str) -> None:
    code = (
        "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']);"
        "print(onnxruntime.__version__)"
    )
    assert other_runtimes.in_process(oldest, code, str(made[kind])).strip() == kernels.of("onnxruntime-web").release


@pytest.mark.parametrize("case", FOREIGN)
def test_what_the_check_refuses_the_runtime_refuses(web: other_runtimes.Web, tmp_path: Path, case: str) -> None:
    foreign = one(tmp_path / "foreign", **FOREIGN[case])
    assert not accepts(foreign)
    [answer] = web.answers(other_runtimes.WEB, [{"model": str(foreign.folder / "model.onnx")}], tmp_path)
    assert "error" in answer


def test_what_the_check_accepts_at_the_edge_the_runtime_loads(web: other_runtimes.Web, tmp_path: Path) -> None:
    table = kernels.of("onnxruntime-web")
    edges = [one(tmp_path / "opset", "Relu", opset=table.opset), one(tmp_path / "ir", ir_version=table.ir_version),
             one(tmp_path / "function", "Mish"), one(tmp_path / "half", dtype=TensorProto.FLOAT16)]  # fmt: skip
    assert all(map(accepts, edges))
    jobs = [{"model": str(edge.folder / "model.onnx")} for edge in edges]
    assert [answer.get("error") for answer in web.answers(other_runtimes.WEB, jobs, tmp_path)] == [None] * len(edges)


def test_the_promised_web_release_is_the_one_of_the_table(web: other_runtimes.Web) -> None:
    package = web.folder / "node_modules" / other_runtimes.WEB / "package.json"
    assert f'"version": "{kernels.of("onnxruntime-web").release}"' in package.read_text()
