"""What other distributions put on a shelf, by entry points of distributions that are really installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelkit import kinds
from modelkit.errors import ManifestError

Install = Callable[..., None]
MODULE = "VERSION = 1\nclass Options: pass\ndef check(subject, limits): pass\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs distributions with a module of their own name, on a path that is there for one test."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, kind: str, code: str = MODULE, shelf: str = "checks") -> None:
        (tmp_path / f"{name}.py").write_text(code)
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[modelkit.{shelf}]\n{kind} = {name}\n")
        kinds._third_party.cache_clear()

    yield install
    monkeypatch.undo()
    kinds._third_party.cache_clear()


def test_an_entry_point_is_a_kind_like_any_other(install: Install, tmp_path: Path) -> None:
    install("their_kind_a", "short-name")
    assert "short-name" in kinds.names("checks")
    assert kinds.load("checks", "short-name").__file__ == str(tmp_path / "their_kind_a.py")


def test_an_entry_point_is_a_kind_on_the_shelf_of_its_group_alone(install: Install) -> None:
    install("their_kind_b", "coarse", shelf="schemes")
    assert "coarse" in kinds.names("schemes")
    assert "coarse" not in kinds.names("checks")


def test_a_misspelt_kind_of_another_distribution_is_answered_with_the_nearest(install: Install) -> None:
    install("their_kind_c", "short-name")
    with pytest.raises(ManifestError, match="unknown check 'shrt-name', did you mean 'short-name'"):
        kinds.load("checks", "shrt-name")


@pytest.mark.parametrize("code", ["import nowhere_to_be_found\n", "def\n", "1 / 0\n"])
def test_a_module_that_cannot_be_imported_is_told_in_one_sentence(install: Install, code: str) -> None:
    name = f"their_kind_d{len(code)}"
    install(name, "short-name", code)
    with pytest.raises(ManifestError, match=f"{name}, which is installed, cannot be imported") as told:
        kinds.load("checks", "short-name")
    assert "\n" not in told.value.message


def test_an_installed_check_that_lacks_something_is_told_what(install: Install) -> None:
    install("their_kind_h", "short-name", "VERSION = 1\n")
    with pytest.raises(ManifestError, match="their_kind_h, which is installed, has no Options, check; every module of"):
        kinds.load("checks", "short-name")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("1 / 0\n", r"own\.py: cannot be imported \(ZeroDivisionError: division by zero\); correct it"),
        ("VERSION = 1\n", r"own\.py: has no Options, check; every module of the shelf checks defines VERSION, "),
    ],
)
def test_a_project_s_file_that_is_no_check_is_told_in_one_sentence(tmp_path: Path, code: str, told: str) -> None:
    folder = tmp_path / "conformance" / "checks"
    folder.mkdir(parents=True)
    (folder / "own.py").write_text(code)
    with pytest.raises(ManifestError, match=told):
        kinds.load("checks", "own", tmp_path)


def test_modelkit_s_own_kinds_cannot_be_replaced(install: Install) -> None:
    install("their_kind_e", "parity")
    with pytest.raises(
        ManifestError, match="their_kind_e, which is installed, takes the name of modelkit's own parity"
    ):
        kinds.load("checks", "parity")


def test_two_distributions_with_one_kind_are_refused(install: Install) -> None:
    install("their_kind_f", "short-name")
    install("their_kind_g", "short-name")
    with pytest.raises(ManifestError, match="both installed as the check short-name"):
        kinds.names("checks")


@pytest.mark.parametrize(("kind", "owner"), [("parity", "modelkit's own"), ("short-name", "their_kind_h")])
def test_a_project_s_check_may_not_take_a_name_that_is_taken(
    install: Install, tmp_path: Path, kind: str, owner: str
) -> None:
    install("their_kind_h", "short-name")
    own = tmp_path / "project" / "conformance" / "checks" / f"{kind.replace('-', '_')}.py"
    own.parent.mkdir(parents=True)
    own.write_text(MODULE)
    with pytest.raises(ManifestError, match=f"takes the name of {owner}") as told:
        kinds.load("checks", kind, tmp_path / "project")
    assert str(own) in str(told.value)
