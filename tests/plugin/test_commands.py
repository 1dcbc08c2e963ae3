"""The command line over the same functions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelkit import manifest
from modelkit.errors import COULD_NOT_RUN, INTERRUPTED, NOT_CONFORMING, USAGE
from plugin.conftest import command


@pytest.fixture
def modelkit(project: Path):
    return lambda *arguments: command(*arguments, cwd=project, store=project / "store")


def final(project: Path, channel: str) -> Path:
    return project / "build" / channel / "out" / "Final" / "tiny"


def test_validate_names_the_variants(modelkit) -> None:
    assert modelkit("validate", "tiny.yaml").stdout == "tiny.yaml: tiny: int8, int4\n"


def test_validate_gives_every_mistake_of_every_file_and_exit_code_2(modelkit, project: Path) -> None:
    shutil.copy(project / "tiny.yaml", project / "other.yaml")
    for name in ("tiny.yaml", "other.yaml"):
        (project / name).write_text((project / name).read_text().replace("license:", "licence:"))
    done = modelkit("validate", ".")
    assert done.returncode == USAGE
    assert "tiny.yaml:3:1: licence" in done.stderr
    assert "other.yaml:3:1: licence" in done.stderr
    assert "Traceback" not in done.stderr


def test_build_makes_both_channels(modelkit, project: Path) -> None:
    assert modelkit("build", "tiny.yaml").returncode == 0
    assert (final(project, "dev") / "model.onnx").exists()
    assert (final(project, "prod") / "model.onnx").exists()


@pytest.mark.parametrize("flag", ["--dev", "--int8", "--variant=int8"])
def test_build_makes_only_what_is_selected(modelkit, project: Path, flag: str) -> None:
    modelkit("build", "tiny.yaml", flag)
    assert final(project, "dev").exists()
    assert not final(project, "prod").exists()


def test_a_name_that_selects_nothing_is_a_mistake_with_a_suggestion(modelkit) -> None:
    done = modelkit("build", "tiny.yaml", "--only", "tinny")
    assert done.returncode == USAGE
    assert "no model 'tinny' in these manifests, did you mean 'tiny'?" in done.stderr


def test_build_says_that_nothing_was_made_anew(modelkit) -> None:
    assert "tiny/int8: from the store" in modelkit("build", "tiny.yaml").stdout


def test_force_builds_again_and_replaces_an_edited_folder(modelkit, project: Path) -> None:
    modelkit("build", "tiny.yaml")
    edited = final(project, "dev") / "model.onnx"
    edited.write_bytes(b"mine")
    assert modelkit("build", "tiny.yaml").returncode == NOT_CONFORMING
    assert edited.read_bytes() == b"mine"
    assert modelkit("build", "tiny.yaml", "--force").returncode == 0
    assert edited.read_bytes() != b"mine"


def test_clean_removes_what_else_lies_in_the_finished_folder(modelkit, project: Path) -> None:
    modelkit("build", "tiny.yaml")
    (final(project, "dev") / "stray.txt").write_text("x")
    assert modelkit("build", "tiny.yaml", "--clean").returncode == 0
    assert not (final(project, "dev") / "stray.txt").exists()


def test_check_passes_without_pytest_and_prints_the_table(modelkit) -> None:
    done = modelkit("check", "tiny.yaml")
    assert done.returncode == 0
    assert "worst margin" in done.stdout


def test_check_exits_1_for_a_broken_promise(modelkit, project: Path) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("1 MB", "1 kB"))
    done = modelkit("check", "tiny.yaml")
    assert done.returncode == NOT_CONFORMING
    assert "\n  again: pytest --modelkit tiny.yaml::int8::budget\n" in done.stdout


def test_check_shows_the_worst_cases_of_a_broken_promise(modelkit, project: Path) -> None:
    path = project / "tiny.yaml"
    limits = "limits: {parity: {cosine_min: 1.0}}"
    path.write_text(path.read_text().replace("budget: 1 MB", f"budget: 1 MB\n    {limits}", 1))
    lines = modelkit("check", "tiny.yaml").stdout.splitlines()
    told = next(number for number, line in enumerate(lines) if "int8: parity: failed" in line)
    assert '"cosine"' in lines[told + 1]


def test_a_broken_promise_counts_more_than_a_check_that_could_not_run(modelkit, project: Path) -> None:
    checks = project / "conformance" / "checks"
    checks.mkdir()
    (checks / "own.py").write_text(
        "from dataclasses import dataclass\nVERSION = 1\n@dataclass(frozen=True)\nclass Options: pass\n"
        "def check(subject, limits):\n"
        "    from modelkit.errors import CheckError\n    raise CheckError('no abacus', hint='buy one')\n"
    )
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("1 MB", "1 kB"))
    done = modelkit("check", "tiny.yaml")
    assert done.returncode == NOT_CONFORMING
    assert "not conforming" in done.stdout
    assert "own: errored" in done.stdout


def test_an_interrupted_command_gives_no_verdict(project: Path) -> None:
    checks = project / "conformance" / "checks"
    checks.mkdir()
    (checks / "own.py").write_text(
        "import time\nfrom dataclasses import dataclass\nfrom pathlib import Path\nVERSION = 1\n"
        "@dataclass(frozen=True)\nclass Options: pass\n"
        "def check(subject, limits):\n    Path('begun').touch()\n    time.sleep(600)\n"
    )
    begun = [sys.executable, "-m", "modelkit", "check", "tiny.yaml"]
    environment = {**os.environ, "MODELKIT_STORE": str(project / "store")}
    with subprocess.Popen(begun, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        while not (project / "begun").exists():
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        output, errors = run.communicate()
    assert (run.returncode, errors.decode()) == (INTERRUPTED, "interrupted\n")
    assert b"conforming" not in output


def test_a_corpus_that_no_check_can_read_is_told_and_the_table_still_comes(modelkit, project: Path) -> None:
    corpus = project / "conformance" / "corpora" / "feature-extraction.jsonl"
    corpus.write_text("".join(corpus.read_text().splitlines(keepends=True)[:5]))
    done = modelkit("check", "tiny.yaml")
    assert done.returncode == COULD_NOT_RUN
    assert done.stdout.count("build: errored") == 2
    assert "worst margin" in done.stdout


def test_an_unreachable_source_exits_3_with_one_line(modelkit, project: Path) -> None:
    shutil.rmtree(project / "store")
    shutil.rmtree(project / "weights")
    done = modelkit("build", "tiny.yaml")
    assert done.returncode == COULD_NOT_RUN
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (project / "build").exists()


def test_a_draft_alone_is_nothing_to_build(modelkit, project: Path) -> None:
    (project / "tiny.lock").unlink()
    done = modelkit("build", "tiny.yaml")
    assert done.returncode == USAGE
    assert "draft" in done.stderr


def test_why_says_that_all_is_reused(modelkit) -> None:
    lines = modelkit("why", "tiny/int8", "tiny.yaml").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["downloaded", "converted", "quantized", "finalized"]
    assert all("reused" in line for line in lines)


def test_why_names_the_one_thing_that_differs(modelkit, project: Path) -> None:
    path, lock = project / "tiny.yaml", project / "tiny.lock"
    path.write_text(path.read_text().replace("block: 16", "block: 32"))
    lock.write_text(lock.read_text().replace('"block": 16', '"block": 32'))
    out = modelkit("why", "tiny/int4", "tiny.yaml").stdout
    assert "to be made: scheme.w4a8-per-token.block: 16 -> 32" in out


def test_a_forecast_tells_what_the_budget_leaves(modelkit) -> None:
    said = modelkit("forecast", "tiny/int8", "tiny.yaml").stdout
    assert re.fullmatch(r"tiny/int8: \d\.\d\d MB of 1\.00 MB, \d+\.\d% to spare\n", said)


def test_a_forecast_tells_what_is_too_much(modelkit, project: Path) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("budget: 1 MB", "budget: 20 kB"))
    (project / "tiny.lock").unlink()
    assert "% too much" in modelkit("forecast", "tiny/int8", "tiny.yaml").stdout


def without_schemes(project: Path, budget: str = "1 MB") -> Path:
    """The int8 variant says nothing but what it may take, and how close it has to be."""
    path = project / "tiny.yaml"
    text = path.read_text().replace("    scheme: w8a8-per-token\n    budget: 1 MB\n", f"    budget: {budget}\n")
    path.write_text(text)
    return path


def test_tune_finds_a_recipe_for_a_budget_and_writes_it_with_its_reason(modelkit, project: Path) -> None:
    path = without_schemes(project)
    done = modelkit("tune", "tiny/int8", "tiny.yaml", "--trials", "6", "--picture", "front.svg")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best so far" in done.stderr
    assert "tiny.yaml: the scheme of int8 is recipe" in done.stdout
    assert (project / "front.svg").read_text().startswith("<?xml")
    read = manifest.load(path)
    assert read.variants["int8"].scheme.kind in ("w8a8-per-token", "w4a8-per-token")
    reason = json.loads((project / "tiny.lock").read_text())["reasons"]["int8"]
    assert (reason["trials"], reason["budget"]) == (6, 1_000_000)
    assert modelkit("lock", "--check", "tiny.yaml").returncode == 0
    # A lock that is made anew still knows.
    modelkit("lock", "tiny.yaml")
    assert json.loads((project / "tiny.lock").read_text())["reasons"]["int8"] == reason


def test_tune_leaves_the_manifest_alone_when_nothing_fits(modelkit, project: Path) -> None:
    path = without_schemes(project, "1 kB")
    before = path.read_text()
    done = modelkit("tune", "tiny/int8", "tiny.yaml", "--trials", "3")
    assert done.returncode == NOT_CONFORMING
    assert re.search(r"none of 3 recipes conforms; the smallest has 0\.\d\d MB of 0\.00 MB: allow more", done.stdout)
    assert path.read_text() == before


def test_tune_keeps_to_the_scheme_that_a_variant_has(modelkit, project: Path) -> None:
    done = modelkit("tune", "tiny/int8", "tiny.yaml", "--trials", "4", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "w4a8" not in done.stdout
    assert "scheme: w8a8-per-token" in done.stdout


def test_tune_of_a_scheme_that_is_not_searched_is_told(modelkit, project: Path) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("scheme: w8a8-per-token", "scheme: int8-dynamic"))
    done = modelkit("tune", "tiny/int8", "tiny.yaml")
    assert done.returncode == USAGE
    assert re.search(r"tiny\.yaml:\d+:5: the options of int8-dynamic cannot be searched; leave the scheme", done.stderr)


def test_lock_check_agrees_with_a_fresh_lock(modelkit) -> None:
    done = modelkit("lock", "--check", "tiny.yaml")
    assert done.returncode == 0
    assert done.stdout == "tiny.lock: true\n"


def test_lock_check_names_what_moved_on(modelkit, project: Path) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("max_tokens: 32", "max_tokens: 16"))
    done = modelkit("lock", "--check", "tiny.yaml")
    assert done.returncode == NOT_CONFORMING
    assert "max_tokens: 32 -> 16" in done.stdout


def test_a_manifest_that_moved_on_from_its_lock_is_refused(modelkit, project: Path) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("max_tokens: 32", "max_tokens: 16"))
    done = modelkit("build", "tiny.yaml")
    assert done.returncode == USAGE
    assert "tiny.lock: was locked for another recipe" in done.stderr


def test_two_locks_of_the_same_project_are_the_same_bytes(modelkit, project: Path) -> None:
    before = (project / "tiny.lock").read_bytes()
    (project / "tiny.lock").unlink()
    shutil.rmtree(project / "store")
    assert modelkit("lock", "tiny.yaml").returncode == 0
    assert (project / "tiny.lock").read_bytes() == before


def test_a_damaged_lock_can_be_made_anew(modelkit, project: Path) -> None:
    before = (project / "tiny.lock").read_bytes()
    (project / "tiny.lock").write_text("{")
    assert modelkit("lock", "tiny.yaml").stdout == "tiny.lock: written\n"
    assert (project / "tiny.lock").read_bytes() == before


def test_lock_says_that_only_figures_were_written_anew(modelkit, project: Path) -> None:
    path = project / "tiny.lock"
    before = path.read_bytes()
    fields = json.loads(before)
    fields["measured"]["int8"]["parity"]["cosine_min"] = 0.5
    path.write_text(json.dumps(fields))
    assert modelkit("lock", "--check", "tiny.yaml").stdout == "tiny.lock: true\n"
    assert modelkit("lock", "tiny.yaml").stdout == "tiny.lock: the same files, other figures\n"
    assert path.read_bytes() == before
    assert modelkit("lock", "tiny.yaml").stdout == "tiny.lock: unchanged\n"


def test_a_variant_of_another_channel_is_told(modelkit) -> None:
    done = modelkit("build", "tiny.yaml", "--int4", "--dev")
    assert (done.returncode, done.stderr) == (
        USAGE, "error: no variant is int4 in the channel dev; leave one of the two out\n"
    )  # fmt: skip


def test_a_length_that_leaves_no_token_is_a_mistake_of_the_manifest(modelkit, project: Path) -> None:
    path = project / "tiny.yaml"
    path.write_text(path.read_text().replace("max_tokens: 32", "max_tokens: -1"))
    done = modelkit("validate", "tiny.yaml")
    assert done.returncode == USAGE
    assert "expected max_tokens of at least 3, got -1" in done.stderr


def test_bisect_ranks_the_nodes_and_says_what_the_scheme_offers(project: Path) -> None:
    done = command("bisect", "tiny/int4", "tiny.yaml", "--top", "3", cwd=project, store=project / "store")
    assert done.returncode == 0, done.stderr
    assert "tiny/int4: relative errors of one node at a time" in done.stdout
    advice = r"^tiny\.yaml:\d+:\d+: weights_8bit with '\S+\.weight' would cost \+\d\.\d\d kB$"
    assert re.search(advice, done.stdout, re.M)
    assert len(re.findall(r"^│ .*%", done.stdout, re.M)) == 3


def test_bisect_of_an_unknown_variant_is_one_line(project: Path) -> None:
    done = command("bisect", "tiny/int5", "tiny.yaml", cwd=project, store=project / "store")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no tiny/int5 in these manifests, did you mean 'tiny/int")
