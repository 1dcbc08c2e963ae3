"""What is collected, under which ids, and what that costs."""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKS = (
    *("any-text", "budget", "determinism", "golden", "hygiene", "invariance", "parity"),
    *("signature", "special-tokens", "tokenizer"),
)


def test_without_the_flag_a_manifest_is_no_test(pytester: pytest.Pytester, project: Path) -> None:
    assert pytester.runpytest_subprocess("tiny.yaml").ret == pytest.ExitCode.USAGE_ERROR


def test_the_ini_setting_stands_in_for_the_flag(pytester: pytest.Pytester, project: Path) -> None:
    pytester.makeini("[pytest]\nmodelkit = true\n")
    result = pytester.runpytest_subprocess("--collect-only", "-q", "tiny.yaml")
    result.stdout.fnmatch_lines(["tiny.yaml::int8::parity"])


def test_every_variant_has_every_check_under_a_readable_id(project: Path, run) -> None:
    result = run("--collect-only", "-q", "tiny.yaml")
    result.stdout.fnmatch_lines([f"tiny.yaml::{variant}::{check}" for variant in ("int8", "int4") for check in CHECKS])


def test_a_folder_stands_for_the_manifests_in_it(project: Path, run) -> None:
    result = run("--collect-only", "-q", ".")
    result.stdout.fnmatch_lines(["tiny.yaml::int8::parity"])


def test_an_id_can_be_run_by_itself(project: Path, run) -> None:
    run("tiny.yaml::int8::parity").assert_outcomes(passed=1)


def test_a_checks_file_of_the_project_is_one_more_check(project: Path, run) -> None:
    checks = project / "conformance" / "checks"
    checks.mkdir()
    (checks / "small_name.py").write_text(
        "from dataclasses import dataclass\n"
        "from modelkit.vocabulary import Verdict\n"
        "VERSION = 1\n"
        "@dataclass(frozen=True)\n"
        "class Options: pass\n"
        "def check(subject, limits):\n"
        "    return Verdict('small-name', 'passed', f'{subject.manifest.name} is short')\n"
    )
    run("tiny.yaml::int8::small-name").assert_outcomes(passed=1)


def test_collecting_needs_no_network_and_no_onnxruntime(project: Path, pytester: pytest.Pytester) -> None:
    # Any look-up of a name or any connection would raise; onnxruntime must not have been imported at the end.
    pytester.makeconftest(
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        "def pytest_unconfigure(config):\n"
        "    heavy = {'onnxruntime', 'onnx', 'numpy', 'huggingface_hub', 'tokenizers'} & set(sys.modules)\n"
        "    print('heavy imports:', sorted(heavy))\n"
    )
    result = pytester.runpytest_subprocess("--modelkit", "--collect-only", "-s", "tiny.yaml")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["heavy imports: []"])


def test_every_mistake_of_a_manifest_is_shown_at_once_and_stops_the_run(project: Path, run) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("license:", "licence:").replace("1 MB", "1 MBB"))
    result = run("tiny.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    output = result.stdout.str()
    assert "tiny.yaml:3:1: licence: unknown key, did you mean 'license'?" in output
    assert output.count("expected a size such as '23 MB', got '1 MBB'") == 2
    assert "Traceback" not in output
