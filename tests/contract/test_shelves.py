"""Every module on every shelf keeps its shelf's contract; a new file is covered before anyone writes a test for it."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pytest
from pydantic import TypeAdapter

from modelkit import check_modules, kinds
from modelkit.errors import ManifestError
from modelkit.manifest_keys import RUNTIMES

VERBS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sources": {"fetch": ("options", "wanted", "into", "context")},
    "architectures": {},
    "exporters": {"export": ("manifest", "source", "into", "options")},
    "schemes": {"quantize": ("source", "into", "options")},
    "tasks": {"open_": ("folder", "sessions", "options"), "verify": ("folder", "rows")},
    "checks": {"check": ("subject", "limits")},
    "faults": {"spoil": ("what", "draw")},
}
"""Shelf -> verb -> its parameters."""
WITHOUT_DEFAULTS = ("sources", "architectures")
"""There is no default place, and no default model."""
GIVEN = {"vectors", "logits", "labels", "text", "images"}
"""What tasks give, as docs/adding.md explains the words."""
HEAVY = [
    "hypothesis",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnx_ir",
    "ml_dtypes",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "pydantic",
    "yaml",
    "torch",
    "rich",
    "pip",
    "urllib.request",
    "http.client",
]
"""Not at the top of a shelf module: all of them are imported to read a manifest, and in every pytest run."""

PLACES = {"graph": "graph", "folder": "folder", "source": "folder", "recipe": "recipe"}
"""Where a fault is put -> what its `what` is called."""
WITHOUT_OPTIONS = ("faults",)
"""What no manifest names has nothing to set."""

MODULES = [(shelf, kind) for shelf in VERBS for kind in kinds.names(shelf)]
everything = pytest.mark.parametrize(("shelf", "kind"), MODULES)
chosen = pytest.mark.parametrize(("shelf", "kind"), [pair for pair in MODULES if pair[0] not in WITHOUT_OPTIONS])


def having(*shelves: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("shelf", "kind"), [pair for pair in MODULES if pair[0] in shelves])


def tree(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))


def test_there_is_something_on_every_shelf() -> None:
    assert {shelf for shelf, _ in MODULES} == set(VERBS)


def test_every_folder_of_kinds_is_a_shelf_known_here() -> None:
    """A shelf is a folder whose __init__.py says `One file per`."""
    package = Path(str(sys.modules["modelkit"].__file__)).parent
    shelves = {at.parent.name for at in package.glob("*/__init__.py") if "One " in at.read_text(encoding="utf-8")}
    assert shelves == set(VERBS)


@everything
def test_the_file_name_is_the_kind(shelf: str, kind: str) -> None:
    assert Path(str(kinds.load(shelf, kind).__file__)).stem == kind.replace("-", "_")
    assert kind == kind.lower()


@everything
def test_the_module_says_what_it_is(shelf: str, kind: str) -> None:
    lines = (kinds.load(shelf, kind).__doc__ or "").splitlines()
    assert lines
    assert len(lines[0]) > 20


@chosen
def test_options_are_a_frozen_dataclass_that_says_what_it_holds(shelf: str, kind: str) -> None:
    options = kinds.load(shelf, kind).Options
    assert is_dataclass(options)
    assert options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    # dataclass() writes a docstring of its own when there is none.
    assert options.__doc__
    assert not options.__doc__.startswith("Options(")


@chosen
def test_every_option_has_a_type_that_can_be_validated(shelf: str, kind: str) -> None:
    options = kinds.load(shelf, kind).Options
    get_type_hints(options)
    assert TypeAdapter(options).json_schema()["type"] == "object"


@chosen
def test_defaults_construct_and_equal_each_other(shelf: str, kind: str) -> None:
    options = kinds.load(shelf, kind).Options
    needed = {
        item.name: 1 if "int" in str(item.type) else "x"
        for item in fields(options)
        if item.default is MISSING and item.default_factory is MISSING
    }
    if shelf not in WITHOUT_DEFAULTS:
        assert not needed
    assert options(**needed) == options(**needed)
    hash(options(**needed))


@having("sources")
def test_the_first_option_of_a_source_is_its_kind(shelf: str, kind: str) -> None:
    # A manifest writes `hub: someone/model`, and the other options beside it.
    first = fields(kinds.load(shelf, kind).Options)[0]
    assert first.name == kind
    assert first.default is MISSING


@everything
def test_the_verb_is_there_with_its_parameters(shelf: str, kind: str) -> None:
    module = kinds.load(shelf, kind)
    for verb, parameters in VERBS[shelf].items():
        function = getattr(module, verb)
        named = tuple(inspect.signature(function).parameters)
        if verb == "quantize" and hasattr(module.Options, "calibrates"):
            assert named[-1] == "activations"
            named = named[:-1]
        assert tuple("what" if name in PLACES.values() and shelf == "faults" else name for name in named) == parameters
        assert function.__doc__, f"{verb} has no docstring"
        assert inspect.getmodule(function) is module


@everything
def test_nothing_else_is_public_but_what_it_defines(shelf: str, kind: str) -> None:
    """A shelf module is a leaf: what it offers beyond its contract is named with an underscore or documented."""
    module = kinds.load(shelf, kind)
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@having("exporters", "schemes", "checks")
def test_a_version_is_in_the_key(shelf: str, kind: str) -> None:
    found = kinds.load(shelf, kind).VERSION
    assert type(found) is int
    assert found >= 1


@having("schemes")
def test_a_scheme_says_how_many_bits_it_promises(shelf: str, kind: str) -> None:
    """The check `coverage` holds it to them, and looks at nothing of a scheme that does not say."""
    assert kinds.load(shelf, kind).BITS in (4, 8, 16, 32)


@having("exporters", "schemes")
def test_tools_are_installed_distributions(shelf: str, kind: str) -> None:
    tools = kinds.load(shelf, kind).TOOLS
    assert type(tools) is tuple
    for name in tools:
        assert version(name)


@having("exporters", "schemes")
def test_every_package_that_is_imported_is_among_the_tools(shelf: str, kind: str) -> None:
    module = kinds.load(shelf, kind)
    distributions = {"onnx": "onnx", "onnx_ir": "onnx-ir", "numpy": "numpy", "onnxruntime": "onnxruntime"}
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {str(node.module).split(".")[0] for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom)}
    assert {distributions[name] for name in imported & distributions.keys()} <= set(module.TOOLS)


@having("architectures")
def test_an_architecture_records_parts_for_tasks_that_exist(shelf: str, kind: str) -> None:
    module = kinds.load(shelf, kind)
    layouts = [module.PARTS, *([module.SPLIT] if hasattr(module, "SPLIT") else [])]
    assert module.PARTS
    for layout in layouts:
        assert set(layout) <= set(kinds.names("tasks"))
        for draw in (draw for parts in layout.values() for draw in parts.values()):
            assert tuple(inspect.signature(draw).parameters) == ("blocks", "config", "task")


@having("architectures")
def test_an_architecture_names_the_prefixes_of_its_checkpoints(shelf: str, kind: str) -> None:
    module = kinds.load(shelf, kind)
    assert all(isinstance(name, str) for name in module.PREFIXES)
    assert "" in module.PREFIXES


@having("faults")
def test_a_fault_says_where_it_is_put(shelf: str, kind: str) -> None:
    """Its parameter is named after the place, but for a source, which is a folder."""
    module = kinds.load(shelf, kind)
    assert module.WHERE in PLACES
    assert next(iter(inspect.signature(module.spoil).parameters)) == PLACES[module.WHERE]
    assert set(getattr(module, "RUNTIMES", ())) <= set(RUNTIMES)
    assert set(getattr(module, "NEEDS", ())) <= GIVEN


@having("tasks")
def test_a_task_names_the_files_a_consumer_needs(shelf: str, kind: str) -> None:
    assert all(isinstance(name, str) for name in kinds.load(shelf, kind).CONSUMER_FILES)


@having("tasks")
def test_a_task_says_what_it_gives_and_some_check_compares_it(shelf: str, kind: str) -> None:
    gives = kinds.load(shelf, kind).GIVES
    needs = [getattr(kinds.load("checks", check), "NEEDS", ()) for check in kinds.names("checks")]
    assert set(gives) <= GIVEN
    assert any(need and set(need) <= set(gives) for need in needs)


@having("checks")
def test_a_check_needs_what_some_task_gives(shelf: str, kind: str) -> None:
    check = kinds.load(shelf, kind)
    needs = set(getattr(check, "NEEDS", ()))
    assert any(needs <= set(kinds.load("tasks", task).GIVES) for task in kinds.names("tasks"))
    assert getattr(check, "PROFILE", "quick") in check_modules.PROFILES


@having("checks")
def test_a_check_that_searches_says_how_many_examples_each_profile_tries(shelf: str, kind: str) -> None:
    tries = getattr(kinds.load(shelf, kind), "EXAMPLES", None)
    if tries is None:
        return
    first = check_modules.PROFILES.index(getattr(kinds.load(shelf, kind), "PROFILE", "quick"))
    assert tuple(tries) == check_modules.PROFILES[first:]
    assert list(tries.values()) == sorted(tries.values())


@having("checks")
def test_every_limit_knows_its_sense_and_its_standard(shelf: str, kind: str) -> None:
    for item in fields(kinds.load(shelf, kind).Options):
        if isinstance(item.default, int | float) and not isinstance(item.default, bool):
            assert item.metadata.get("sense") in (">=", "<="), f"{item.name} cannot be compared to its standard"


def heavy_after(code: str) -> str:
    checked = f"{code}; import sys; print(' '.join(sorted({set(HEAVY)!r} & sys.modules.keys())))"
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=False)
    return done.stdout.strip() + done.stderr


@pytest.mark.parametrize("shelf", VERBS)
def test_importing_a_whole_shelf_imports_nothing_heavy(shelf: str) -> None:
    code = f"from modelkit import kinds; [kinds.load({shelf!r}, kind) for kind in kinds.names({shelf!r})]"
    assert heavy_after(code) == ""


def test_the_subprocess_would_notice() -> None:
    assert heavy_after("import numpy") == "numpy"


@everything
def test_shelf_modules_do_not_import_each_other(shelf: str, kind: str) -> None:
    others = {f"modelkit.{other}" for other in VERBS}
    for node in ast.walk(tree(kinds.load(shelf, kind))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            assert not [name for name in names for other in others if name == other or name.startswith(f"{other}.")]


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(ManifestError, match="unknown scheme 'w8a8-per-tokn', did you mean 'w8a8-per-token'"):
        kinds.load("schemes", "w8a8-per-tokn")
