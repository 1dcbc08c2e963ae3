"""The second checkpoint, converted: the float32 model as ONNX, with what a consumer needs beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelkit import byte_level, graphs, json_objects, kinds, lock, model, opcodes, pickled, tokenizer, weights
from modelkit.errors import MissingFileError, StageError
from modelkit.file_names import wants
from modelkit.json_objects import read_object
from modelkit.stages.download import place_of
from modelkit.stages.job import Job, code, tool
from modelkit.vocabulary import Source

NAME, VERSION, INPUTS = "converted", 1, ("downloaded",)


def material(job: Job, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Exporter, task and their options, the digests of what is read, and the tools that write."""
    exporter = kinds.load("exporters", job.manifest.export.kind)
    # An exporter whose bytes depend on more than its tools here says on what.
    extra = {"extra": exporter.extra()} if hasattr(exporter, "extra") else {}
    return {
        **extra,
        "name": job.manifest.name,
        "export": lock.options(job.manifest.export),
        "exporter": exporter.VERSION,
        "task": lock.options(job.manifest.task),
        "signatures": lock.signatures(job.manifest),
        "inputs": dict(inputs),
        "tools": {name: tool(name) for name in exporter.TOOLS},
        # Which architecture is known only when config.json is at hand, so every one counts.
        "code": code(
            *(exporter, kinds.load("tasks", job.manifest.task.kind), graphs, model),
            *(weights, pickled, opcodes, tokenizer, byte_level, json_objects, *_architectures()),
        ),
    }


def _architectures() -> list[Any]:
    return [kinds.load("architectures", kind) for kind in kinds.names("architectures")]


def run(job: Job, inputs: Mapping[str, Path], into: Path) -> None:
    """Raises `StageError` when the source lacks a file or its parts do not fit together."""
    source, task = inputs["downloaded"], kinds.load("tasks", job.manifest.task.kind)
    export = job.manifest.export
    with _placed(job.manifest.source):
        # Before the export: a wrong tokenizer is found in a tenth of the time.
        task.verify(source, _vocabulary_size(source))
        kinds.load("exporters", export.kind).export(job.manifest, source, into, export.options)
    _refuse_damaged(into)
    for name in task.CONSUMER_FILES:
        if name == tokenizer.FILE:
            tokenizer.write_tokenizer(source, into)
        elif (source / name).exists():
            shutil.copyfile(source / name, into / name)
    (into / model.CARD).write_bytes(model.card(job.manifest.name, job.manifest.task).encode())


@contextmanager
def _placed(source: Source) -> Iterator[None]:
    """Tell of a missing file which place lacks it; one that the manifest wants already need not be added to it."""
    try:
        yield
    except MissingFileError as error:
        error.message = error.message.replace(
            "the source", " and ".join(map(place_of, (source.first, *source.mirrors)))
        )
        if error.make is not None and wants(source.files, error.name):
            folder = "that folder" if source.first.kind == "path" else "a folder, which `source` names as `path`"
            error.hint = f"download it into {folder}{f', or make it there: {error.make}' if error.make else ''}"
        raise


def _refuse_damaged(into: Path) -> None:
    """Whatever the scheme: what is quantized hides a NaN, and what is not carries it into every output."""
    from modelkit.graphs.contents import no_numbers  # noqa: PLC0415
    from modelkit.graphs.files import read_graph  # noqa: PLC0415

    for part, path in graphs.parts(into).items():
        for damage in no_numbers(read_graph(path), path.parent):
            raise StageError(
                f"{part}: {damage}", hint="the source's weights are damaged: fetch them again, or ask their author"
            )


def _vocabulary_size(source: Path) -> int | None:
    """Rows of the embedding table as config.json has it; a prebuilt model may come without one."""
    try:
        config = read_object(source / "config.json")
    except StageError:
        return None  # the exporter reads the same file and says what is wrong with it
    # Where a model of several parts keeps the settings of its text encoder; what stands first is what counts.
    for place in (config, config.get("text_config_dict"), config.get("text_config")):
        if isinstance(place, dict) and isinstance(size := place.get("vocab_size"), int):
            return size
    return None
