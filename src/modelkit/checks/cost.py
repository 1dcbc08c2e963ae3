"""What the artifact costs beside its float32 model: time, memory and loading, as ratios of one run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from modelkit import corpora
from modelkit.errors import CheckError
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Artifact, Manifest, Subject, Verdict

VERSION = 2
PROMISE = "the artifact is not much slower, larger in memory or slower to load than its float32 model"
PROFILE = "full"
TEXTS = 24
ROUNDS = 3
WORST = 5
PATIENCE = 900
"""Seconds one process may take."""


@dataclass(frozen=True)
class Options:
    """The artifact's figure as a multiple of the float32 model's, measured in the same run. None is no limit."""

    latency_p50: float | None = at_most(1.5)
    latency_p95: float | None = at_most(1.5)
    batch_time: float | None = at_most(1.5)
    memory: float | None = at_most(1.5)
    load: float | None = at_most(6.0)


def reads(manifest: Manifest) -> dict[str, Any]:  # noqa: ARG001
    """The code that measures, in a process of its own."""
    from modelkit.digests import digest_file  # noqa: PLC0415

    return {"timing": digest_file(Path(__file__).parents[1] / "timing.py").sha256}


def check(subject: Subject, limits: Options) -> Verdict:
    """Measure both in processes of their own, by turns; ratios are medians of the rounds' own ratios.

    Raises `CheckError` when a process does not come to an answer.
    """
    rows = corpora.spread(subject.corpus, TEXTS)
    texts = [row["text"] for row in rows]
    rounds = []
    for number in range(ROUNDS):
        # What slows the machine down for a while slows both; who comes first changes, because the first warms it up.
        both = [subject.artifact, subject.reference]
        found = {one.digest: _measured(one, texts) for one in (reversed(both) if number % 2 else both)}
        rounds.append((found[subject.artifact.digest], found[subject.reference.digest]))
    measured = {name: median(_ratios(*one)[name] for one in rounds) for name in _ratios(*rounds[0])}
    ours, theirs = rounds[-1]
    told = {
        "throughput": 1 / measured["batch_time"],
        "ms_per_text": 1e3 * median(ours["alone"]),
        "memory_bytes": ours["memory"],
        "texts": len(texts),
        "threads": 1,
    }
    ratios = [a / b for a, b in zip(ours["alone"], theirs["alone"], strict=True)]
    slowest = sorted(range(len(rows)), key=lambda n: -ratios[n])[:WORST]
    worst = tuple({"id": rows[n]["id"], "latency": round(ratios[n], 3), "text": rows[n]["text"][:80]} for n in slowest)
    return judge("cost", {**measured, **told}, limits, worst)


def _ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    return {
        "latency_p50": percentile(ours["alone"], 50) / percentile(theirs["alone"], 50),
        "latency_p95": percentile(ours["alone"], 95) / percentile(theirs["alone"], 95),
        "batch_time": theirs["texts_per_second"] / ours["texts_per_second"],
        "memory": ours["memory"] / theirs["memory"],
        "load": ours["load"] / theirs["load"],
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """As `numpy.percentile` with method `linear`."""
    import numpy as np  # noqa: PLC0415

    return float(np.percentile(values, percent))


def _measured(artifact: Artifact, texts: list[str]) -> dict[str, Any]:
    # -P: a folder called modelkit where the user happens to stand must not be what is imported.
    command = [sys.executable, "-P", "-m", "modelkit.timing", str(artifact.folder)]
    try:
        done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True,
                              timeout=PATIENCE)  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"a measuring process gave no answer within {PATIENCE} s") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise CheckError(
            f"a measuring process failed: {said[-1] if said else 'without a word'}",
            hint=f"run `python -m modelkit.timing {artifact.folder}` by hand",
        ) from error
    except ValueError as error:
        raise CheckError(f"a measuring process answered {done.stdout[:80]!r}, which is no measurement") from error
    return found
