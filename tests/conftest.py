"""Fixtures of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy with something else is no reason to fail.
settings.register_profile("modelkit", deadline=None)
settings.load_profile("modelkit")

pytest_plugins = ["pytester"]

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of the test's own, for this process and its children."""
    folder = tmp_path / "store"
    monkeypatch.setenv("MODELKIT_STORE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_store() -> Path:
    """A store inside the checkout for tests on real weights, so that a second run downloads nothing."""
    return REPOSITORY / "build" / "test-store"
