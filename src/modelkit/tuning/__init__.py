"""Which recipe keeps a variant within its budget and its limits: rank what is sensitive, search, prove the best.

The search learns from and scores calibration texts. What no check scores cannot be fitted to the checks; they judge
the recipes it found afterwards, best first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit import bisecting, conformance, corpora, durable, kinds, pipeline
from modelkit.digests import digest_folder, digest_of, key_of
from modelkit.errors import ManifestError
from modelkit.lock import options
from modelkit.pipeline import Build
from modelkit.stages.job import code, tool
from modelkit.tuning import space as spaces
from modelkit.tuning.bench import Bench, job_of
from modelkit.tuning.pareto import front, rank
from modelkit.tuning.search import Search, Trial, Wanted
from modelkit.vocabulary import UNCHANGED, Artifact, Choice, Progress, Verdict

GROUPS = 4
"""Sorts of matrices that may get more precision; the others made less of the error than any of these."""
PROVEN = 5
"""Recipes, the closest ones, that are shown to the checks before the search counts as failed."""
TEXTS = 6
"""That sensitivity is measured on."""


@dataclass(frozen=True)
class Limits:
    """Of a search."""

    seconds: float = 480
    trials: int | None = None
    products: float = 1.1
    """Most integer multiplications per weight: 1 is no second product for any activation."""
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """What a search found."""

    trials: tuple[Trial, ...]
    chosen: Trial | None
    """The closest one that every check lets pass; None: none of the best did."""
    broken: Mapping[int, Verdict]
    """Number of a trial that was shown to the checks -> the first one that did not let it pass."""
    reason: Mapping[str, Any]
    """For the lock, in JSON built-ins: what was searched, and what it came to."""


def tune(build: Build, limits: Limits, progress: Progress, told: Callable[[Trial], None]) -> Tuned:
    """Search for the recipe of `build`'s variant; `told` hears of every trial.

    Of a variant with a scheme, only that scheme's options are open; of a float32 one, every scheme that can be
    searched. Raises `ManifestError` when there is none, `StageError` when there are no calibration texts.
    """
    job = build.job
    schemes = _schemes(job.variant.scheme.kind)
    if not schemes:
        raise ManifestError(
            f"the options of {job.variant.scheme.kind} cannot be searched",
            where=job.manifest.place(f"variants.{job.variant.name}.scheme"),
            hint="leave the scheme out, and all that can be are tried",
        )
    with build.store.workspace("tuning") as place:
        bench = Bench(build, place)
        sizes = spaces.matrices(bench.converted.folder)
        groups = _sensitive(bench, schemes, sizes, place / "ranking", progress)
        space, wanted = spaces.Space(schemes, groups), Wanted(job.variant.budget, limits.products)
        search = Search(
            space,
            wanted,
            size=bench.size,
            products=lambda recipe: spaces.products(recipe, sizes),
            error=bench.error,
        )
        what = {**_material(bench, space), "budget": wanted.budget, "products": wanted.products, "seed": limits.seed}
        kept = build.store.root / "tuning" / f"{key_of(what)}.log"
        trials = []
        with durable.locked(_made(kept.with_suffix(".lock"))):
            for trial in search.trials(kept, limits.seed, limits.seconds, limits.trials):
                trials.append(trial)
                told(trial)
    chosen, broken = _proven(build, trials, progress)
    return Tuned(tuple(trials), chosen, broken, {**what, **_reason(trials, chosen)})


def _schemes(kind: str) -> tuple[str, ...]:
    named = kinds.names("schemes") if kind == UNCHANGED else (kind,)
    return tuple(one for one in named if spaces.tunable(one))


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _sensitive(
    bench: Bench, schemes: tuple[str, ...], sizes: Mapping[str, int], place: Path, progress: Progress
) -> tuple[str, ...]:
    """The sorts of matrices that make most of the error where nothing is tuned, the worst first."""
    place.mkdir()
    plain = [Choice(scheme, kinds.load("schemes", scheme).Options()) for scheme in schemes]
    # The first whose blocks suit the model; a last one that suits it no better says what is wrong.
    folder = bench.made(next((one for one in plain if bench.size(one) is not None), plain[-1]))
    files = digest_folder(folder)
    artifact = Artifact(folder, digest_of(files), files)
    rows = corpora.shorter(bench.scored, TEXTS)
    report = bisecting.bisect(bench.manifest, bench.converted, artifact, place, progress, rows=rows)
    shares = dict.fromkeys(spaces.grouped(sizes), 0.0)
    for one in report.findings:
        for group in spaces.grouped(name for name in one.weights if name in sizes):
            shares[group] += one.share
    return tuple(sorted(shares, key=lambda group: (-shares[group], group))[:GROUPS])


def _material(bench: Bench, space: spaces.Space) -> dict[str, Any]:
    """What decides which recipes are drawn, and how close they come."""
    return {
        "model": bench.converted.digest,
        "texts": bench.digest,
        "schemes": list(space.schemes),
        "groups": list(space.groups),
        "code": code(sys.modules[__name__], *(kinds.load("schemes", scheme) for scheme in space.schemes)),
        "tools": {name: tool(name) for name in ("optuna", "onnxruntime", "numpy", "tokenizers")},
    }


def _proven(build: Build, trials: list[Trial], progress: Progress) -> tuple[Trial | None, dict[int, Verdict]]:
    """The first of the best trials that every check lets pass, and what stood in the way of those before it."""
    broken: dict[int, Verdict] = {}
    closest: dict[str, Trial] = {}
    for trial in sorted((one for one in trials if one.error is not None), key=rank):
        closest.setdefault(str(trial.recipe), trial)
    for number, trial in enumerate(list(closest.values())[:PROVEN]):
        progress("the checks", number, PROVEN)
        job = job_of(build.job, trial.recipe)
        candidate = Build(job, build.store)
        verdicts = conformance.examine(conformance.Examination(candidate, pipeline.build(candidate)))
        if not (bad := [one for one in verdicts if one.outcome in ("failed", "errored")]):
            return trial, broken
        broken[trial.number] = bad[0]
    return None, broken


def _reason(trials: list[Trial], chosen: Trial | None) -> dict[str, Any]:
    best = [[one.size, round(one.products, 4), round(one.error or 0, 6), options(one.recipe)] for one in front(trials)]
    return {
        "trials": len(trials),
        "chosen": None if chosen is None else [chosen.number, round(chosen.error or 0, 6)],
        "front": best,
    }
