"""How close to its float32 model a recipe makes an artifact, on texts that no check scores."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelkit import corpora, distances, graphs, model, runtime
from modelkit.errors import StageError
from modelkit.graphs.float64 import Activations
from modelkit.graphs.kept import Kept
from modelkit.pipeline import Build
from modelkit.stages import convert, finalize, quantize
from modelkit.stages.job import Job
from modelkit.vocabulary import Choice, Manifest, Variant

HELD_OUT = 3
"""Every third of the calibration texts is scored; recipes learn from the others."""


class Bench:
    """Makes artifacts of one model by one recipe after the other."""

    def __init__(self, build: Build, place: Path) -> None:
        """`place` is an empty folder. Raises `StageError` when there are no calibration texts for the task."""
        self._build, self._place = build, place
        self.manifest = build.job.manifest
        self.converted = build.artifact(convert.NAME)
        rows, self.digest = corpora.calibration(build.job.manifest)
        self.scored = [row for number, row in enumerate(rows) if number % HELD_OUT == 0]
        learned = [row["text"] for number, row in enumerate(rows) if number % HELD_OUT]
        fed = quantize.feeds_of(build.job.manifest, self.converted.folder, learned)
        self._activations = {part: self._kept(part, arrays) for part, arrays in fed.items()}
        self._distance = distances.of_task(build.job.manifest)
        self._exact = self._outputs(self.converted.folder)

    def _kept(self, part: str, fed: list[Mapping[str, Any]]) -> Kept:
        folder = self._place / "activations" / part
        folder.mkdir(parents=True)
        path = graphs.parts(self.converted.folder)[part]
        return Kept(lambda: Activations(path, fed), folder)

    def _outputs(self, folder: Path) -> Any:
        return model.load(folder).outputs([row["text"] for row in self.scored])

    def size(self, recipe: Choice) -> int | None:
        """Bytes of the model, forecast; None where the scheme cannot hold it (its blocks do not divide)."""
        try:
            return quantize.forecast(recipe, self.converted.folder)
        except StageError:
            return None

    def made(self, recipe: Choice) -> Path:
        """The finished folder; it goes away with the next one."""
        quantized, finished = (self._place / stage for stage in (quantize.NAME, finalize.NAME))
        for folder in (quantized, finished):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        calibrates = getattr(recipe.options, "calibrates", False)
        quantize.apply(recipe, self.converted.folder, quantized, self._activations if calibrates else {})
        inputs = {quantize.NAME: quantized, convert.NAME: self.converted.folder}
        finalize.run(self._build.job, inputs, finished)
        return finished

    def error(self, recipe: Choice) -> float:
        """The mean distance (`distances`) from the float32 model's outputs over the scored texts."""
        found = float(self._distance(self._outputs(self.made(recipe)), self._exact).mean())
        runtime.give_back_memory()
        return found


def job_of(job: Job, recipe: Choice) -> Job:
    """The same variant by another recipe."""
    variant: Variant = replace(job.variant, scheme=recipe)
    manifest: Manifest = replace(job.manifest, variants={**job.manifest.variants, variant.name: variant})
    return replace(job, manifest=manifest, variant=variant)
