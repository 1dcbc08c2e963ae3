"""How a fault gets into an artifact: into its finished files, or into what the stages then make it of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

from modelkit import graphs, kinds, model
from modelkit.digests import digest_folder, digest_of
from modelkit.errors import ModelkitError
from modelkit.pipeline import STAGES, Build
from modelkit.stages import convert, download, finalize
from modelkit.vocabulary import Artifact, Choice


class RefusedError(Exception):
    """A stage refused to build from what was spoiled."""

    def __init__(self, told: str, why: str) -> None:
        super().__init__(why)
        self.told = told


Spoiled = tuple[Build, str] | None
"""The build with what was made of it, and what exactly was damaged; None where the fault has no place."""


def _in_graph(build: Build, fault: str, place: Path, draw: Random) -> Spoiled:
    """Damage the graph of one part of the finished folder: the first, in an order that is drawn, that has a place."""
    from modelkit.graphs.surgery import Surgery  # noqa: PLC0415

    def spoil(folder: Path) -> str | None:
        parts = [*graphs.parts(folder).items()]
        for part, path in draw.sample(parts, len(parts)):
            graph = Surgery(path)
            if told := kinds.load("faults", fault).spoil(graph, draw):
                graph.save()
                return f"{part}: {told}" if len(parts) > 1 else str(told)
        return None

    return _in_files(build, spoil, place)


def _in_folder(build: Build, fault: str, place: Path, draw: Random) -> Spoiled:
    """Damage a file of the finished folder."""
    return _in_files(build, lambda folder: kinds.load("faults", fault).spoil(folder, draw), place)


def _in_files(build: Build, spoil: Callable[[Path], str | None], place: Path) -> Spoiled:
    finished = build.made[finalize.NAME]
    folder = _copied(finished, place / "finished")
    sums = (folder / finalize.SUMS).read_bytes()
    told = spoil(folder)
    if told is None:
        return None
    if (folder / finalize.SUMS).read_bytes() == sums:
        # As a build that made the mistake would have written them.
        finalize.write_sums(folder)
    return replace(build, made={**build.made, finalize.NAME: _as_it_is(finished, folder)}), told


def _in_source(build: Build, fault: str, place: Path, draw: Random) -> Spoiled:
    """Convert from a damaged copy of the source: the float32 model is as wrong as the artifact."""
    source = _copied(build.made[download.NAME], place / "source")
    told = kinds.load("faults", fault).spoil(source, draw)
    return (_rebuilt(build, build, source, place, told), told) if told else None


def _in_recipe(build: Build, fault: str, place: Path, draw: Random) -> Spoiled:
    """Convert with other options of the task than the manifest has: float32 and artifact are wrong alike."""
    task = build.job.manifest.task
    options = json.loads(json.dumps(asdict(task.options)))
    told = kinds.load("faults", fault).spoil(options, draw)
    if not told:
        return None
    changed = replace(build.job.manifest, task=Choice(task.kind, model.options(task.kind, options)))
    other = replace(build, job=replace(build.job, manifest=changed))
    return _rebuilt(build, other, build.made[download.NAME].folder, place, told), told


def _rebuilt(build: Build, recipe: Build, source: Path, place: Path, told: str) -> Build:
    """What the stages of `recipe` make of the files in `source`, passed off as what they make for `build`."""
    folders, made = {download.NAME: source}, {download.NAME: build.made[download.NAME]}
    for stage in STAGES[1:]:
        into = place / stage.NAME
        into.mkdir()
        try:
            stage.run(recipe.job, {needed: folders[needed] for needed in stage.INPUTS}, into)
        except ModelkitError as error:
            raise RefusedError(told, str(error)) from error
        if stage is convert:
            # The mistake is in the graph: what stands beside it is as it should be, and gives nothing away.
            for path in build.made[convert.NAME].folder.iterdir():
                if path.is_file() and ".onnx" not in path.name:
                    shutil.copyfile(path, into / path.name)
        folders[stage.NAME], made[stage.NAME] = into, _as_it_is(build.made[stage.NAME], into)
    return replace(build, made=made)


def _copied(artifact: Artifact, into: Path) -> Path:
    shutil.copytree(artifact.folder, into)
    # The store's files are read-only.
    into.chmod(0o755)
    for path in into.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return into


def _as_it_is(artifact: Artifact, folder: Path) -> Artifact:
    files = digest_folder(folder)
    return replace(artifact, folder=folder, digest=digest_of(files), files=files)


SPOIL: Mapping[str, Callable[[Build, str, Path, Random], Spoiled]] = {
    "graph": _in_graph,
    "folder": _in_folder,
    "recipe": _in_recipe,
    "source": _in_source,
}
"""What a fault says of itself in `WHERE` -> how it gets there, given what was built, its kind and an empty folder.

Each raises `RefusedError` when a stage refuses what is damaged.
"""
