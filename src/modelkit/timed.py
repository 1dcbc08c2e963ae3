"""Finished folders timed by turns, each in a process of its own (`modelkit.timing`): ratios of one run hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from modelkit.errors import CheckError
from modelkit.vocabulary import Artifact

ROUNDS = 3
PATIENCE = 900
"""Seconds one process may take."""


def reads() -> dict[str, Any]:
    """What a check that times reads beside its own file: the code that measures."""
    from modelkit.digests import digest_file  # noqa: PLC0415

    return {path.stem: digest_file(path).sha256 for path in (Path(__file__), Path(__file__).with_name("timing.py"))}


def by_turns(artifacts: Sequence[Artifact], texts: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Of each round the figures of each artifact, as `timing.measure` gives them.

    Raises `CheckError` when a process does not come to an answer.
    """
    rounds = []
    for number in range(ROUNDS):
        # What slows the machine down for a while slows all; who comes first changes, because the first warms it up.
        step = -1 if number % 2 else 1
        rounds.append([_measured(one, texts) for one in artifacts[::step]][::step])
    return rounds


def medians(rounds: Sequence[Sequence[Mapping[str, Any]]], ours: int, theirs: int) -> dict[str, float]:
    """The figures of the artifact at place `ours` as multiples of those at place `theirs`: of each the median over the
    rounds' own ratios. More is slower, or larger."""
    found = [_ratios(one[ours], one[theirs]) for one in rounds]
    return {name: median(ratios[name] for ratios in found) for name in found[0]}


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


def _measured(artifact: Artifact, texts: Sequence[str]) -> dict[str, Any]:
    # -P: a folder called modelkit where the user happens to stand must not be what is imported.
    command = [sys.executable, "-P", "-m", "modelkit.timing", str(artifact.folder)]
    try:
        done = subprocess.run(command, input=json.dumps([*texts]), capture_output=True, text=True, check=True,
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
