"""Recordings for the stand-ins without the reference environment: what our model gave, as if it were the original."""

from __future__ import annotations

from pathlib import Path

from modelkit import corpora, durable, lock, manifest, model, pipeline
from modelkit.reference import recorded
from modelkit.stages.job import Job
from modelkit.store import Store

VERSIONS = {"transformers": "none"}


def record(path: Path, store: Path) -> Path:
    """The golden of the locked manifest at `path`, from its own float32 model; returns the file."""
    loaded, locked = manifest.load(path), lock.read(path)
    assert locked is not None
    build = pipeline.Build(Job(loaded, next(iter(loaded.variants.values())), locked.source), Store(store))
    rows = recorded.select(corpora.rows(loaded)[0])
    outputs = model.load(build.artifact("converted").folder).outputs([row["text"] for row in rows], batch_size=1)
    durable.put(recorded.path_of(loaded), recorded.text(loaded, locked.source, rows, outputs, VERSIONS).encode())
    return recorded.path_of(loaded)
