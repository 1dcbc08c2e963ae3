"""What the plugin costs a run that does not use it, and what a thousand manifests cost a run that does."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from statistics import median

from bench.prepared import MANIFEST
from bench.processes import Ran, by_turns, python, seconds
from bench.report import against, table

ROUNDS, IMPORTS, COLLECTIONS, MANIFESTS = 41, 9, 5, 1000
QUIET = ("-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider")
NOTHING_COLLECTED = 5


def main() -> None:
    """Print the section."""
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        empty.mkdir()
        full.mkdir()
        _fill(full)
        runs = by_turns(ROUNDS, {"without": lambda: _idle(empty, "-p", "no:modelkit"), "with": lambda: _idle(empty)})
        imports = [_import_time() for _ in range(IMPORTS)]
        collected = by_turns(COLLECTIONS, {"1,000 manifests": lambda: python(*QUIET, "--modelkit", full)})
    added = median(a.seconds - b.seconds for a, b in zip(runs["with"], runs["without"], strict=True)) * 1e3
    fastest = (min(r.seconds for r in runs["with"]) - min(r.seconds for r in runs["without"])) * 1e3
    medians = (seconds(runs["with"]) - seconds(runs["without"])) * 1e3
    manifests = collected["1,000 manifests"]
    items = re.findall(r"(\d+) tests collected", manifests[0].output)[-1]
    print(f"""## Start-up

`pytest --collect-only` on an empty folder, whole processes, {ROUNDS} rounds by turns, and on {MANIFESTS:,} drafts, each
MiniLM's manifest under a name of its own ({int(items):,} items, printed); median of {COLLECTIONS} runs.
""")
    print(table(
        ("run", "seconds"),
        [
            ("empty folder, `-p no:modelkit`", f"{seconds(runs['without']):.3f}"),
            ("empty folder, plugin loaded", f"{seconds(runs['with']):.3f}"),
            (f"{MANIFESTS:,} manifests collected", f"{seconds(manifests):.2f}"),
        ],
    ))  # fmt: skip
    print(f"""The plugin adds {medians:.1f} ms between the medians, {added:.1f} ms as the median of the rounds' \
differences, {fastest:.1f} ms between the fastest
runs (other work on the machine only ever adds). `-X importtime` gives `modelkit.pytest_plugin`
{median(imports) / 1e3:.1f} ms,
all that it imports included.
""")
    print(against([
        ("ms that the plugin adds to a run (medians)", medians, "{:.1f}", "<=", 15),
        (f"seconds to collect {MANIFESTS:,} manifests", seconds(manifests), "{:.2f}", "<=", 2),
    ]))  # fmt: skip


def _fill(folder: Path) -> None:
    text = MANIFEST.read_text("utf-8")
    for number in range(MANIFESTS):
        name = f"model-{number:04}"
        (folder / f"{name}.yaml").write_text(text.replace("name: minilm-l6", f"name: {name}"), "utf-8")


def _idle(folder: Path, *arguments: str) -> Ran:
    return python(*QUIET, *arguments, folder, codes=(NOTHING_COLLECTED,))


def _import_time() -> int:
    """Microseconds, cumulative, with pytest imported before. Not in a pytest run: that imports plugins unseen."""
    output = python("-X", "importtime", "-c", "import pytest, modelkit.pytest_plugin").output
    found = re.search(r"import time:\s+\d+ \|\s+(\d+) \|\s+modelkit\.pytest_plugin", output)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
