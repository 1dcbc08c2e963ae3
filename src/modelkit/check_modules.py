"""What a module on the shelf `checks` must be, and what it may answer: other people write some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from modelkit import kinds
from modelkit.digests import canonical
from modelkit.errors import CheckError, InputError, ManifestError
from modelkit.vocabulary import Place, Subject, Verdict

PROFILES = ("quick", "full", "release")
"""How much is looked at: each profile runs the checks of those before it, too, and tries more examples."""
GIVEN = ("passed", "failed", "skipped")
"""What a check may find. The other outcomes are not its to give: any other text would pass for a pass."""


def load(kind: str, project: Path | None) -> ModuleType:
    """The module of the check `kind`. Raises `ManifestError` for one that is not what a check has to be."""
    module = kinds.load("checks", kind, project)
    _insist(module)
    return module


def needs(module: ModuleType) -> set[str]:
    """What the task must give for the check to be of any use; nothing is every task's."""
    return {*getattr(module, "NEEDS", ())}


def profiles(module: ModuleType) -> tuple[str, ...]:
    """The profiles that run the check."""
    return PROFILES[PROFILES.index(getattr(module, "PROFILE", PROFILES[0])) :]


def examples(module: ModuleType, profile: str) -> int:
    """How many examples the check tries in `profile`; 0 for one that does not search."""
    tries: Mapping[str, int] = getattr(module, "EXAMPLES", {})
    return tries[profile] if tries else 0


def _insist(module: ModuleType) -> None:
    # A word that is not understood must not mean "never": the check would be missing, and nobody would notice.
    if _is_ours(module):
        return
    wrong = [(name, told) for name, told in _mistakes(module).items() if told]
    if wrong:
        name, told = wrong[0]
        raise ManifestError(f"{name} {told}", where=_file(module), hint="correct the check")


def _mistakes(module: ModuleType) -> dict[str, str | None]:
    """What each of the module's words should be and is not."""
    needed, profile = getattr(module, "NEEDS", ()), getattr(module, "PROFILE", PROFILES[0])
    known = sorted({word for kind in kinds.names("tasks") for word in getattr(kinds.load("tasks", kind), "GIVES", ())})
    tries = getattr(module, "EXAMPLES", {})
    return {
        "VERSION": None if type(module.VERSION) in (int, str) else "is neither a whole number nor a text",
        "Options": None if _is_standard(module.Options) else "is no dataclass whose fields all have a standard",
        "check": None if callable(module.check) else "is no function",
        "PROFILE": None if profile in PROFILES else f"is {profile!r}, none of {', '.join(PROFILES)}",
        "NEEDS": None if _all_in(needed, known) else f"is {needed!r}, no tuple of {', '.join(known)}",
        "EXAMPLES": "is no mapping of each profile that runs the check to a number above 0"
        if profile in PROFILES and tries != {} and not _is_counted(tries, PROFILES[PROFILES.index(profile) :])
        else None,
    }


def _is_standard(options: Any) -> bool:
    if not (isinstance(options, type) and is_dataclass(options)):
        return False
    try:
        options()
    except Exception:  # noqa: BLE001  whatever a stranger's class does
        return False
    return True


def _all_in(words: Any, known: list[str]) -> bool:
    return isinstance(words, tuple | list | set | frozenset) and all(word in known for word in words)


def _is_counted(tries: Any, wanted: tuple[str, ...]) -> bool:
    return isinstance(tries, Mapping) and all(type(tries.get(name)) is int and tries[name] > 0 for name in wanted)


def verdict(name: str, module: ModuleType, subject: Subject, limits: Any) -> Verdict:
    """What `module` finds, as the verdict of the check `name`.

    Raises `CheckError` when it cannot run, breaks off, or answers what no check may. A mistake in one of modelkit's own
    is raised as it is, to be shown in full.
    """
    job = f"{subject.manifest.name}/{subject.variant.name}"
    try:
        found = module.check(subject, limits)
    # A text of the corpus that the model cannot answer is the corpus's fault, and no caller's.
    except (CheckError, InputError) as error:
        raise CheckError(f"{job}: {name} could not run: {error.message}", where=error.where, hint=error.hint) from error
    # One that exits would end the whole run as if all were well.
    except (Exception, SystemExit) as error:
        if _is_ours(module):
            raise
        message = f"{job}: {name} broke off: {kinds.told(error)}"
        raise CheckError(message, where=_place_in(module, error), hint="correct the check") from error
    if not isinstance(found, Verdict):
        raise CheckError(f"{job}: {name} gave no Verdict, but {found!r}", where=_file(module), hint="correct the check")
    if found.outcome not in GIVEN:
        raise CheckError(
            f"{job}: {name} gave the outcome {found.outcome!r}",
            hint=f"a check gives {', '.join(GIVEN)}, and raises CheckError when it cannot run",
        )
    try:
        canonical({**asdict(found), "worst": list(found.worst)})
    except (TypeError, ValueError) as error:
        message = f"{job}: {name} gave a verdict that cannot be written down ({error})"
        raise CheckError(message, where=_file(module), hint="make it JSON built-ins") from error
    # A project's check may not pass its verdict off as another's.
    return replace(found, check=name)


def _is_ours(module: ModuleType) -> bool:
    return module.__name__.startswith("modelkit.checks.")


def _file(module: ModuleType) -> Path:
    return Path(str(module.__file__))


def _place_in(module: ModuleType, error: BaseException) -> Place:
    """The last line of the check that stood in the way of `error`."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == module.__file__]
    return Place(_file(module), (lines[-1] if lines else None) or 1)
