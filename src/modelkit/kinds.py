"""Shelf and kind -> module. The file name is the kind: `int8-dynamic` is `schemes/int8_dynamic.py`.

Three places are looked at: this package, packages that declare an entry point in the group `modelkit.<shelf>`
(name: the kind, value: the module), and for checks the project's own `conformance/checks/`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from modelkit.errors import ManifestError

PROJECT_SHELVES = {"checks": Path("conformance") / "checks"}
NEEDED = {"checks": ("VERSION", "Options", "check")}
"""Shelf -> what a module on it must define, where projects write some of their own."""


def names(shelf: str, project: Path | None = None) -> tuple[str, ...]:
    """Every kind on `shelf`, sorted; `project` is the folder that holds `conformance/`."""
    return tuple(sorted({*_built_in(shelf), *_third_party(shelf), *_project_files(shelf, project)}))


def load(shelf: str, kind: str, project: Path | None = None) -> ModuleType:
    """The module of `kind`.

    Raises `ManifestError` with the nearest known kind when there is none, and when there are two modules of one name,
    or one that cannot be imported.
    """
    built_in, installed, files = _built_in(shelf), _third_party(shelf), _project_files(shelf, project)
    if kind in files and kind in {*built_in, *installed}:
        owner = "modelkit's own" if kind in built_in else f"{installed[kind]}, which is installed as"
        raise ManifestError(f"takes the name of {owner} {kind}", where=files[kind], hint="give it another name")
    if kind in built_in and kind in installed:
        message = f"{installed[kind]}, which is installed, takes the name of modelkit's own {kind}"
        raise ManifestError(message, hint="give its entry point another name, or uninstall it")
    if kind in built_in:
        return importlib.import_module(f"modelkit.{shelf}.{kind.replace('-', '_')}")
    if kind in installed:
        return _complete(shelf, _import_installed(installed[kind]), f"{installed[kind]}, which is installed,")
    if kind in files:
        return _complete(shelf, _import_file(files[kind]), files[kind])
    raise ManifestError(f"unknown {shelf.rstrip('s')} '{kind}'{did_you_mean(kind, names(shelf, project))}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?`, or the list of what there is when nothing is near."""
    known = sorted(known)
    if near := get_close_matches(word, known, n=1):
        return f", did you mean '{near[0]}'?"
    return f", expected one of: {', '.join(known)}" if known else ""


def told(error: BaseException) -> str:
    """In one line, what somebody else's code raised."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SyntaxError | ImportError) else f"{type(error).__name__}: {text}".rstrip(": ")


def project_of(manifest: Path) -> Path | None:
    """The nearest folder above `manifest` that holds a `conformance/` folder."""
    return next((folder for folder in manifest.resolve().parents if (folder / "conformance").is_dir()), None)


@cache
def _built_in(shelf: str) -> frozenset[str]:
    folder = Path(__file__).parent / shelf
    return frozenset(_kind(path) for path in folder.glob("*.py") if not path.name.startswith("_"))


@cache
def _third_party(shelf: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for point in entry_points(group=f"modelkit.{shelf}"):
        if (other := found.setdefault(point.name, point.module)) != point.module:
            message = f"{other} and {point.module} are both installed as the {shelf.rstrip('s')} {point.name}"
            raise ManifestError(message, hint="uninstall one of them")
    return found


def _project_files(shelf: str, project: Path | None) -> dict[str, Path]:
    if project is None or shelf not in PROJECT_SHELVES:
        return {}
    found: dict[str, Path] = {}
    for path in sorted((project / PROJECT_SHELVES[shelf]).glob("*.py")):
        if not path.name.startswith("_") and (other := found.setdefault(_kind(path), path)) != path:
            message = f"takes the name of {other.name} beside it: both are {_kind(path)}"
            raise ManifestError(message, where=path, hint="give it another name")
    return found


def _import_installed(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a stranger's module does
        message = f"{module}, which is installed, cannot be imported ({told(error)})"
        raise ManifestError(message, hint="correct it, or uninstall it") from error


def _complete(shelf: str, module: ModuleType, where: Path | str) -> ModuleType:
    if missing := [name for name in NEEDED.get(shelf, ()) if not hasattr(module, name)]:
        file = where if isinstance(where, Path) else None
        message = f"{'' if file else f'{where} '}has no {', '.join(missing)}"
        hint = f"every module of the shelf {shelf} defines {', '.join(NEEDED[shelf])}"
        raise ManifestError(message, where=file, hint=hint)
    return module


def _kind(path: Path) -> str:
    return path.stem.replace("_", "-")


@cache
def _import_file(path: Path) -> ModuleType:
    # The digest keeps the files of two projects apart that share a name.
    name = f"modelkit_project_{sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ManifestError("is not an importable Python file", where=path)
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name while the class is made.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a project's file does
        del sys.modules[name]
        message = f"cannot be imported ({told(error)})"
        raise ManifestError(message, where=path, hint="correct it, or move it away") from error
    return module
