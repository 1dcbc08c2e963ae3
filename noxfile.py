"""The one door to every check of this repository: `nox -l` lists them, `nox -s lint` runs one."""

from __future__ import annotations

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
LINT = nox.project.dependency_groups(PROJECT, "lint")

nox.options.sessions = ["lint", "types", "layers", "tests"]
nox.options.reuse_venv = "yes"
nox.options.envdir = "build/nox"


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite; arguments after `--` go to pytest."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Tests that run pytest and the commands many times over."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "slow", "-n", "2", *session.posargs)


@nox.session
def readme(session: nox.Session) -> None:
    """Every code block of README.md and docs/adding.md."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "", "tests/e2e/test_readme.py", "tests/e2e/test_adding.py", *session.posargs)


@nox.session
def roads(session: nox.Session) -> None:
    """Our graphs against those traced from the original models; makes the reference environment (1.1 GB) if needed."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "reference", *session.posargs)


@nox.session
def hub(session: nox.Session) -> None:
    """All eleven manifests, in small, from a hub on loopback (seven minutes)."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "hub", *session.posargs)


@nox.session
def runtimes(session: nox.Session) -> None:
    """The artifacts under onnxruntime-web, and the kernels of the onnxruntime that our table is of; needs Node."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "runtimes", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*LINT)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install("-e", ".[test]", *LINT)
    session.run("mypy")


@nox.session
def layers(session: nox.Session) -> None:
    """Who may import whom."""
    session.install("-e", ".", *LINT)
    session.run("lint-imports")


@nox.session(venv_backend="none")
def ci(session: nox.Session) -> None:
    """What a fresh machine would say of the last commit: .ci/run in a fresh clone."""
    clone = session.create_tmp()
    session.run("rm", "-rf", f"{clone}/clone", external=True)
    session.run("git", "clone", "--quiet", ".", f"{clone}/clone", external=True)
    session.run("bash", f"{clone}/clone/.ci/run", external=True, env={"CI": "true"})
