"""Do the checks bite? Each fault of the shelf is put into a copy of a conforming artifact, and some check must fail.

Mutation testing (DeMillo, Lipton and Sayward 1978, doi:10.1109/C-M.1978.218136) on models in the place of programs: a
fault that every check lets through has survived, and tells what the standard does not see.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from modelkit import check_modules, kinds, runtime, spoiling
from modelkit.check_modules import PROFILES
from modelkit.conformance import PROOF, Examination, given, plan
from modelkit.digests import key_of
from modelkit.errors import CheckError, ModelkitError
from modelkit.limits import at_least, judge
from modelkit.pipeline import STAGES
from modelkit.stages import finalize
from modelkit.stages.job import code
from modelkit.store import Store
from modelkit.vocabulary import Manifest, Progress, Verdict

BUILD = "build"
"""Who noticed a fault that the stages themselves refuse."""


@dataclass(frozen=True)
class Limits:
    """Which share of the faults the checks must notice for the proof to hold."""

    share: float = at_least(0.95)


@dataclass(frozen=True)
class Tried:
    """One fault in one artifact."""

    fault: str
    """Its kind."""
    told: str
    """What exactly was damaged."""
    noticed: Mapping[str, str]
    """Check -> what it said; empty for a survivor."""


@dataclass(frozen=True)
class Proof:
    """What became of the faults that have a place in one artifact."""

    tried: tuple[Tried, ...]
    checks: tuple[str, ...]
    """Those that pass on the undamaged artifact, in the order they were asked."""
    unasked: Mapping[str, str]
    """Those that could judge nothing even there, and why: one without a recording, without a budget."""
    placeless: tuple[str, ...] = ()
    """The faults that have no place in the artifact."""

    @property
    def survivors(self) -> tuple[Tried, ...]:
        """The faults that nothing noticed."""
        return tuple(one for one in self.tried if not one.noticed)

    @property
    def idle(self) -> tuple[str, ...]:
        """The checks that noticed nothing; says something only when every check was asked about every fault."""
        return tuple(check for check in self.checks if not any(check in one.noticed for one in self.tried))

    @property
    def share(self) -> float:
        """Of the faults, those noticed."""
        return 1 - len(self.survivors) / len(self.tried)

    def verdict(self) -> Verdict:
        """The proof as a promise of the checks: enough of the faults are noticed."""
        killed = len(self.tried) - len(self.survivors)
        measured = {"faults": len(self.tried), "noticed": killed, "share": self.share}
        worst = tuple({"fault": one.fault, "told": one.told} for one in self.survivors)
        names = f"; not: {', '.join(one.fault for one in self.survivors)}" if self.survivors else ""
        sentence = f"{killed} of {len(self.tried)} faults noticed{names}"
        return replace(judge(PROOF, measured, Limits(), worst), sentence=sentence)


def verdict(examination: Examination) -> Verdict:
    """What `prove` finds with every fault: on record for the same artifact, checks and faults, or new.

    Raises `CheckError` as `prove` does.
    """

    def find() -> Verdict:
        with examination.build.store.workspace("proving") as place:
            return prove(examination, place, examination.build.job.context.progress).verdict()

    return examination.recorded(key(examination), find)


def key(examination: Examination) -> str:
    """Of everything that `verdict` depends on."""
    from modelkit.graphs import surgery  # noqa: PLC0415

    return key_of(
        {
            "check": PROOF,
            "checks": examination.keys(),
            # What is converted from a damaged source passes the same stages.
            "stages": [stage.key for stage in examination.artifact.chain],
            "faults": {fault: code(kinds.load("faults", fault)) for fault in kinds.names("faults")},
            "code": code(sys.modules[__name__], spoiling, surgery),
        }
    )


def standing(examination: Examination) -> list[str]:
    """`key` in every profile, lightest first, as `Examination.standing` has those of a check."""
    profiles = [replace(examination, profile=profile) for profile in PROFILES]
    return list(dict.fromkeys(key(one) for one in (*profiles, examination)))


def prove(
    examination: Examination,
    workspace: Path,
    progress: Progress,
    *,
    seed: int = 0,
    every: bool = False,
    only: tuple[str, ...] = (),
) -> Proof:
    """Try every fault that has a place in the artifact, or those named in `only`; the same `seed` damages the same.

    A fault's checks end with the first that fails, unless `every`. `workspace` is an empty folder. Raises `CheckError`
    when the undamaged artifact does not conform, or no fault has a place in it.
    """
    # Made by the store they are in: the empty one, for verdicts on what is damaged, would download it all again.
    made = {stage.NAME: examination.build.artifact(stage.NAME) for stage in STAGES}
    clean = replace(examination, build=replace(examination.build, store=Store(workspace / "verdicts"), made=made))
    checks, unasked = _passed(clean, progress)
    tried, placeless = [], []
    faults = tuple(dict.fromkeys(only)) or _fitting(clean.build.job.manifest)
    for number, fault in enumerate(faults):
        progress("faults", number, len(faults))
        place = workspace / "spoiled"
        place.mkdir()
        one = _tried(clean, fault, checks, place, Random(f"{seed}/{fault}"), every)
        if one:
            tried.append(one)
        else:
            placeless.append(fault)
        shutil.rmtree(place)
        runtime.give_back_memory()
    if not tried:
        raise CheckError(f"{clean.build.job.name}: no fault has a place in it", hint="name others")
    return Proof(tuple(tried), checks, unasked, tuple(placeless))


def _fitting(manifest: Manifest) -> tuple[str, ...]:
    """The faults of models that give what this one's task gives."""
    gives = given(manifest)
    return tuple(
        fault for fault in kinds.names("faults") if gives >= {*getattr(kinds.load("faults", fault), "NEEDS", ())}
    )


def _passed(clean: Examination, progress: Progress) -> tuple[tuple[str, ...], dict[str, str]]:
    """The checks that pass undamaged, the quickest first, less those that build again; and why others were skipped."""
    project = kinds.project_of(clean.build.job.manifest.path)
    # Built again from the undamaged source, anything differs from a damaged copy: that shows nothing.
    planned = [
        check
        for check in plan(clean.build.job.manifest, clean.profile)
        if not getattr(check_modules.load(check, project), "REBUILDS", False)
    ]
    seconds, skipped = {}, {}
    for number, check in enumerate(planned):
        progress("the undamaged artifact", number, len(planned))
        start = time.perf_counter()
        verdict = clean.run(check)
        if verdict.outcome == "failed":
            raise CheckError(
                f"{clean.build.job.name} does not conform undamaged: {check}: {verdict.sentence}",
                hint="what fails already cannot notice a fault; let it pass first",
            )
        if verdict.outcome == "passed":
            seconds[check] = time.perf_counter() - start
        else:
            skipped[check] = verdict.sentence
    return tuple(sorted(seconds, key=lambda check: seconds[check])), skipped


def _tried(
    clean: Examination, fault: str, checks: tuple[str, ...], place: Path, draw: Random, every: bool
) -> Tried | None:
    """What the checks say of the artifact with `fault`; None where it has no place."""
    module = kinds.load("faults", fault)
    if not set(getattr(module, "RUNTIMES", ())) <= set(clean.build.job.manifest.runtimes):
        return None
    try:
        spoiled = spoiling.SPOIL[module.WHERE](clean.build, fault, place, draw)
    except spoiling.RefusedError as refused:
        return Tried(fault, refused.told, {BUILD: str(refused)})
    if spoiled is None:
        return None
    build, told = spoiled
    examination = replace(clean, build=build, artifact=build.made[finalize.NAME], _loaded={}, _outputs={})
    noticed = {}
    for check in checks:
        if said := _said(examination, check):
            noticed[check] = said
            if not every:
                break
    return Tried(fault, told, noticed)


def _said(examination: Examination, check: str) -> str | None:
    """Why `check` does not let the artifact pass, if it does not: a check that cannot run closes the gate as well."""
    try:
        verdict = examination.run(check)
    except ModelkitError as error:
        return str(error)
    return None if verdict.outcome in ("passed", "skipped") else verdict.sentence
