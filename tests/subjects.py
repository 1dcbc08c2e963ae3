"""What checks look at: a good artifact of a stand-in, damaged copies of it, and subjects that are no model at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import stand_ins
from modelkit import manifest, model, pipeline
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

NOTHING = Choice("none", None)


@cache
def good(base: Path) -> Subject:
    """The int8 variant of a stand-in with a corpus of 60 texts, built once below `base`."""
    declared = manifest.load(stand_ins.project(base / "good-artifact"))
    variant = declared.variants["int8"]
    store = Store(base / "good-artifact" / "store")
    build = pipeline.Pins(store).prepare(declared, variant, None, Fetching(declared.path.parent))
    finished, converted = pipeline.build(build), build.artifact("converted")
    corpus = texts(*(f"{word} {other}" for word in stand_ins.WORDS[:6] for other in stand_ins.WORDS[6:16]))

    @cache
    def opened(folder: Path, threads: int | None = None) -> Any:
        return model.load(folder, threads)

    return Subject(
        declared, variant, finished, converted, build.artifact("downloaded"), corpus,
        lambda artifact, threads=None: opened(artifact.folder, threads),
        lambda artifact: opened(artifact.folder).embed([row["text"] for row in corpus]),
        lambda: pipeline.again(build), 20,
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
