"""How modelkit looks to a user's type checker: `mypy`, in the repository root, reads this file; nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

from modelkit import conformance, delivery, digests, kinds, lock, locking, manifest, model, pipeline, runtime
from modelkit.errors import ManifestError, ModelkitError, StageError
from modelkit.store import Store
from modelkit.tasks.feature_extraction import Embedder, Options, Text
from modelkit.vocabulary import (
    Artifact,
    Choice,
    Fetching,
    FileDigest,
    Manifest,
    Outcome,
    Place,
    Stage,
    Variant,
    Verdict,
)


def embeds_texts(folder: Path) -> None:
    # What `load` gives depends on the folder's task; a user names the one they expect.
    embedder: Embedder = model.load(folder, threads=2)
    assert_type(embedder.embed(["a", "b"], batch_size=8), npt.NDArray[np.float32])
    assert_type(embedder.embed(("a",)), npt.NDArray[np.float32])
    assert_type(embedder.width, int)
    model.load("build/dev/out/Final/minilm-l6")


def refuses_wrong_arguments(folder: Path, embedder: Embedder) -> None:
    embedder.embed([1, 2])  # type: ignore[list-item]
    embedder.embed(["a"], 8)  # type: ignore[call-arg, arg-type]
    model.load(folder, threads="2")  # type: ignore[arg-type]
    Text(pooling="max")  # type: ignore[arg-type]
    Options().text = Text()  # type: ignore[misc]


def reads_a_manifest(path: Path) -> None:
    loaded = manifest.load(path)
    assert_type(loaded, Manifest)
    assert_type(loaded.variants, Mapping[str, Variant])
    assert_type(loaded.variants["int8"].budget, int | None)
    assert_type(loaded.variants["int8"].scheme, Choice)
    assert_type(loaded.place("variants.int8"), Place)
    assert_type(manifest.find([path]), list[Path])
    loaded.name = "x"  # type: ignore[misc]


def builds(path: Path) -> None:
    loaded, store = manifest.load(path), Store()
    variant = loaded.variants["int8"]
    build = pipeline.Pins(store).prepare(loaded, variant, None, Fetching(path.parent, offline=True), force=True)
    assert_type(build, pipeline.Build)
    artifact = pipeline.build(build, lock.read(path))
    assert_type(artifact, Artifact)
    assert_type(artifact.size, int)
    assert_type(artifact.files["model.onnx"], FileDigest)
    assert_type(artifact.chain, tuple[Stage, ...])
    assert_type(delivery.deliver(artifact, Path("build")), bool)
    assert_type(conformance.examine(conformance.Examination(build, artifact)), list[Verdict])


def judges(verdict: Verdict) -> str:
    assert_type(verdict.outcome, Outcome)
    assert_type(verdict.margin, float | None)
    Verdict("parity", "passd", "a typo")  # type: ignore[arg-type]
    return verdict.sentence


def locks(loaded: Manifest, store: Store) -> None:
    made = locking.resolved(loaded, store, offline=False, progress=lambda what, done, total: None)
    assert_type(made, lock.Lock)
    assert_type(lock.text(made), str)
    assert_type(locking.compare(None, made), list[str])


def handles_errors(path: Path) -> int:
    try:
        manifest.load(path)
    except ManifestError as error:
        assert_type(error.mistakes, tuple[str, ...])
        return error.exit_code
    except StageError as error:
        assert_type(error.log, str)
    except ModelkitError as error:
        assert_type(error.hint, str | None)
    return 0


def runs_a_session(path: Path) -> None:
    session = runtime.Session(path, threads=1)
    assert_type(session.inputs, dict[str, tuple[str, list[int | str]]])
    assert_type(session.run({"x": np.zeros(1)}, ["y"]), list[Any])


def asks_the_shelves() -> None:
    assert_type(kinds.names("schemes"), tuple[str, ...])
    assert_type(digests.key_of({"a": 1}), str)
