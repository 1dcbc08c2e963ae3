"""What ARCHITECTURE.md says is what the code is."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "modelkit"
PAGE = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
LAYERS = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")

HEAVY = {"huggingface_hub", "numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "rich", "tokenizers", "yaml"}


def modules() -> set[str]:
    """Every module and package directly below `modelkit`."""
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_the_page_lists_the_layers_that_are_enforced() -> None:
    blocks = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)
    assert blocks[1].splitlines() == LAYERS


def test_every_module_stands_on_one_layer() -> None:
    placed = [name for layer in LAYERS for name in layer.split(" | ")]
    assert sorted(placed) == sorted(modules())


def test_the_page_says_of_every_module_what_it_is() -> None:
    explained = re.findall(r"^\| `(\w+)` \| .+ \|$", PAGE, re.M)
    assert sorted(explained) == sorted(modules())


def test_shelf_modules_are_independent_in_the_contract() -> None:
    independent = next(contract["modules"] for contract in CONTRACTS if contract["type"] == "independence")
    shelves = re.findall(r"^\| `(\w+)` \| shelf:", PAGE, re.M)
    assert sorted(independent) == sorted(f"modelkit.{shelf}.*" for shelf in shelves)


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "docs/adding.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    path = REPOSITORY / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_importing_the_plugin_costs_every_pytest_run_next_to_nothing() -> None:
    code = "import sys, modelkit.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
