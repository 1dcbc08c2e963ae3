"""What checks look at: a good artifact of a stand-in, damaged copies of it, and subjects that are no model at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import stand_ins
from modelkit import corpora, manifest, model, pipeline
from modelkit.digests import digest_folder, digest_of
from modelkit.graphs import MODEL
from modelkit.store import Store
from modelkit.vocabulary import (
    WHOLE,
    Artifact,
    Choice,
    Fetching,
    Manifest,
    Signature,
    Source,
    Subject,
    TensorSpec,
    Variant,
)
from stand_ins.clip import clip

NOTHING = Choice("none", None)
CLIP = """\
name: tiny-clip
task: image-feature-extraction
license: MIT
source: {path: weights}
export: direct
signature:
  text_model:
    inputs: {input_ids: "int64[batch, sequence]", attention_mask: "int64[batch, sequence]"}
    outputs: {text_embeds: "float32[batch, 16]"}
  vision_model:
    inputs: {pixel_values: "float32[batch, 3, 32, 32]"}
    outputs: {image_embeds: "float32[batch, 16]"}
text: {max_tokens: 24}
variants:
  fp32: {channel: dev, scheme: fp32, budget: 1 MB}
  int8: {channel: dev, scheme: w8a8-per-token, budget: 1 MB}
"""
"""Of a project whose `weights` are `stand_ins.clip.clip`."""


@cache
def good(base: Path) -> Subject:
    """The int8 variant of a stand-in with a corpus of 60 texts, built once below `base`."""
    corpus = texts(*(f"{word} {other}" for word in stand_ins.WORDS[:6] for other in stand_ins.WORDS[6:16]))
    return built(stand_ins.project(base / "good-artifact"), "int8", base / "good-artifact" / "store", corpus)


@cache
def pictures(base: Path) -> Subject:
    """The int8 variant of a small CLIP with a corpus of a few texts, built once below `base`."""
    folder = base / "good-pictures"
    clip(folder / "weights")
    (folder / "tiny-clip.yaml").write_text(CLIP)
    return built(folder / "tiny-clip.yaml", "int8", folder / "store", texts(*stand_ins.WORDS[:10]))


@cache
def learned(base: Path, name: str, variant: str = "fp32") -> Subject:
    """A variant of a model of tests/learned with the corpus of its task, built once below `base`."""
    path = Path(__file__).parent / "learned" / f"{name}.yaml"
    return built(path, variant, base / "learned", corpora.rows(manifest.load(path))[0])


def built(path: Path, variant: str, store: Path, corpus: Sequence[Mapping[str, str]]) -> Subject:
    """A variant of the manifest at `path`, built with the store in the folder `store`."""
    declared, opened = manifest.load(path), cache(model.load)
    build = pipeline.Pins(Store(store)).prepare(declared, declared.variants[variant], None, Fetching(path.parent))
    finished, converted = pipeline.build(build), build.artifact("converted")
    return Subject(
        declared, declared.variants[variant], finished, converted, build.artifact("downloaded"), tuple(corpus),
        lambda artifact, threads=None: opened(artifact.folder, threads),
        lambda artifact: opened(artifact.folder, None).outputs([row["text"] for row in corpus]),
        lambda: pipeline.again(build), dict, 20,
    )  # fmt: skip


def texts(*lines: str) -> tuple[dict[str, str], ...]:
    """A corpus of `lines`, with the ids t000, t001 and so on."""
    return tuple({"id": f"t{number:03}", "text": line, "group": "tiny"} for number, line in enumerate(lines))


def artifact(folder: Path) -> Artifact:
    """`folder` as it is now."""
    files = digest_folder(folder)
    return Artifact(folder, digest_of(files), files)


def copied(subject: Subject, folder: Path) -> Subject:
    """`subject` with its artifact in the new `folder`, which the test may spoil."""
    shutil.copytree(subject.artifact.folder, folder)
    # The store's files are read-only.
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    return replace(subject, artifact=replace(subject.artifact, folder=folder))


def redrawn(subject: Subject, edit: Callable[[onnx.ModelProto], None]) -> Subject:
    """`subject`, whose artifact is a copy, after `edit` of its model, as if it had been built that way."""
    path = subject.artifact.folder / MODEL
    proto = onnx.load(path, load_external_data=False)
    edit(proto)
    path.write_bytes(proto.SerializeToString())
    return replace(subject, artifact=artifact(subject.artifact.folder))


def slowed(proto: onnx.ModelProto) -> None:
    """Multiplies two large matrices that depend on the input, and adds none of it to the first output."""
    graph, side = proto.graph, 900
    ids, output = graph.input[0].name, graph.output[-1].name
    last = next(node for node in graph.node if output in node.output)
    last.output[[*last.output].index(output)] = "before"
    graph.initializer.extend(
        numpy_helper.from_array(array, name)
        for name, array in {"side": np.array([side, side], np.int64), "none": np.float32(0)}.items()
    )
    graph.node.extend([
        helper.make_node("Cast", [ids], ["numbers"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["numbers"], ["one"], keepdims=0),
        helper.make_node("Expand", ["one", "side"], ["large"]),
        *(helper.make_node("MatMul", [before, "large"], [after])
          for before, after in [("large", "second"), ("second", "third"), ("third", "fourth")]),
        helper.make_node("ReduceMax", ["fourth"], ["peak"], keepdims=0),
        helper.make_node("Mul", ["peak", "none"], ["nothing"]),
        helper.make_node("Add", ["before", "nothing"], [output]),
    ])  # fmt: skip


def fake(**parts: Any) -> Subject:
    """A subject of which only `parts` exist; `signature`, `budget` and the kind of the `task` may be among them."""
    signature = parts.pop("signature", Signature((), ()))
    budget = parts.pop("budget", None)
    task = Choice(parts.pop("task", NOTHING.kind), None)
    declared = Manifest(Path("tiny.yaml"), "tiny", "MIT", task, Source(NOTHING), NOTHING, {WHOLE: signature}, {})
    made = Artifact(Path("nowhere"), "ours", {})
    whole = {
        "manifest": declared,
        "variant": Variant("int8", NOTHING, "dev", budget),
        "artifact": made,
        "reference": replace(made, digest="theirs"),
        "source": replace(made, digest="downloaded"),
        "corpus": (),
        "open": None,
        "outputs": None,
        "again": None,
        "siblings": dict,
    }
    return Subject(**{**whole, **parts})


def compared(ours: Any, theirs: Any, corpus: Sequence[dict[str, str]] = ()) -> Subject:
    """A subject whose artifact gives the vectors `ours` and whose reference gives `theirs`."""
    given = {"ours": np.asarray(ours, np.float32), "theirs": np.asarray(theirs, np.float32)}
    corpus = tuple(corpus) or texts(*(f"text {number}" for number in range(len(given["theirs"]))))
    return fake(corpus=corpus, outputs=lambda which: given[which.digest])


def embedding(embed: Callable[..., Any]) -> Callable[..., Any]:
    """`Subject.open` for a model whose `outputs(texts, batch_size=32)` is the given function."""
    return lambda artifact, threads=None: SimpleNamespace(outputs=embed)


def specs(**tensors: tuple[str, tuple[int | str, ...]]) -> tuple[TensorSpec, ...]:
    """`x=("float32", ("batch", 4))` and so on."""
    return tuple(TensorSpec(name, dtype, shape) for name, (dtype, shape) in tensors.items())


def info(name: str, dtype: int = TensorProto.FLOAT, shape: Sequence[int | str] = ("batch", 4)) -> onnx.ValueInfoProto:
    """An input or output of a graph made by hand."""
    return helper.make_tensor_value_info(name, dtype, list(shape))


def drawn(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    **fields: Any,
) -> Artifact:
    """A folder with nothing but a model of these parts; `fields` go to `onnx.helper.make_model`."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(list(nodes), "drawn", list(inputs), list(outputs), list(initializers))
    fields = {"opset_imports": [helper.make_opsetid("", 20)], "ir_version": 9, **fields}
    (folder / MODEL).write_bytes(helper.make_model(graph, **fields).SerializeToString())
    return artifact(folder)
