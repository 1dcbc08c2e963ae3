"""Whole processes, measured from outside: seconds and peak resident memory, two commands by turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.report import tell
from modelkit.reference import environment

HERE = Path(__file__).parents[1]
WORK = HERE / "build" / "bench"
STORE = WORK / "store"


def optimum_command() -> Path:
    """`optimum-cli` of the reference environment, which is made first if it is missing (about a minute, 1.1 GB)."""
    if environment.find() is None:
        tell("making the reference environment (about a minute, 1.1 GB)")
    return environment.python().with_name("optimum-cli")


@dataclass(frozen=True)
class Ran:
    """One process, or several one after the other."""

    seconds: float
    peak: int
    """Bytes; the largest process of all that took part."""
    code: int
    output: str

    def then(self, next_: Ran) -> Ran:
        """Both, as one."""
        return Ran(
            self.seconds + next_.seconds,
            max(self.peak, next_.peak),
            self.code or next_.code,
            self.output + next_.output,
        )


def run(command: Sequence[str | Path], *, codes: Sequence[int] = (0,), **environment: str) -> Ran:
    """Run it from the repository's root, to its end. Ends the measurement when it exits with none of `codes`."""
    with tempfile.TemporaryFile("w+") as output:
        start = perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], cwd=HERE, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "MODELKIT_STORE": str(STORE), **environment},
        )  # fmt: skip
        # Not RUSAGE_CHILDREN: that is the maximum over all children there ever were.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode not in codes:
        tell(text[-3000:])
        sys.exit(f"exit code {process.returncode}: {' '.join(map(str, command))[:200]}")
    return Ran(seconds, usage.ru_maxrss * 1024, process.returncode, text)


def python(*arguments: str | Path, codes: Sequence[int] = (0,), **environment: str) -> Ran:
    """Run this interpreter."""
    return run([sys.executable, *arguments], codes=codes, **environment)


def by_turns(rounds: int, contestants: Mapping[str, Callable[[], Ran]], warm_up: bool = True) -> dict[str, list[Ran]]:
    """Each contestant once per round, every other round in the opposite order, after one round that does not count."""
    made: dict[str, list[Ran]] = {name: [] for name in contestants}
    for number in range(-1 if warm_up else 0, rounds):
        names = list(contestants) if number % 2 else list(reversed(contestants))
        for name in names:
            ran = contestants[name]()
            tell(f"  {'warm-up' if number < 0 else number + 1}: {name}: {ran.seconds:.2f} s, {ran.peak / 1e6:.0f} MB")
            if number >= 0:
                made[name].append(ran)
    return made


def seconds(runs: Sequence[Ran]) -> float:
    """The median."""
    return median(ran.seconds for ran in runs)


def peak(runs: Sequence[Ran]) -> float:
    """The median, in bytes."""
    return median(ran.peak for ran in runs)


def ratio(over: Sequence[Ran], under: Sequence[Ran], field: str = "seconds") -> float:
    """Median of the ratios of runs that followed each other: what slows one down for a while slows both."""
    return median(getattr(a, field) / getattr(b, field) for a, b in zip(over, under, strict=True))
