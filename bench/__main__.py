"""`python -m bench`: the measurements of a page one after the other, and the page."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.processes import HERE, python
from bench.report import table, tell
from modelkit.reference import environment

# Speed comes first: minutes of building slow a processor down, and integer and float kernels not alike.
RESULTS = ("speed", "export", "runs", "stale", "startup")
FAMILIES = ("families", "generation")
PAGES = {"RESULTS.md": ("python -m bench", RESULTS), "FAMILIES.md": ("python -m bench families generation", FAMILIES)}
"""File -> the command that writes it, and its sections."""
TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy", "tokenizers", "pytest", "pydantic")

MACHINE = """
import json, platform
from importlib.metadata import version
from modelkit.runtime import cpu
print(json.dumps({"cpu": dict(cpu()), "python": platform.python_version(),
                  "tools": {name: version(name) for name in %r}}))
"""


def main() -> None:
    """Measure the subjects named, or those of RESULTS.md; write a page only when all of its sections were measured."""
    named = sys.argv[1:] or RESULTS
    wanted = tuple(name for name in (*RESULTS, *FAMILIES) if name in named)
    if unknown := sorted(set(named) - set(wanted)):
        sys.exit(f"nothing measures {', '.join(unknown)}; there are {', '.join((*RESULTS, *FAMILIES))}")
    page = next((name for name, (_, sections) in PAGES.items() if sections == wanted), None)
    sections = [_machine(PAGES[page][0] if page else f"python -m bench {' '.join(wanted)}")]
    for name in wanted:
        tell(f"{name}:")
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=HERE, stdout=subprocess.PIPE, text=True,
                              check=False)  # fmt: skip
        if done.returncode:
            sys.exit(f"bench.{name} ended with exit code {done.returncode}; {page or 'every page'} is left as it was")
        sections.append(done.stdout.strip() + "\n")
    text = "\n".join(sections)
    if page:
        Path(__file__).with_name(page).write_text(text, encoding="utf-8")
    print(text)


def _machine(command: str) -> str:
    found = json.loads(python("-c", MACHINE % (TOOLS,)).output)
    cpu = found["cpu"]
    rows = [
        ("processor", f"{cpu['system']} {cpu['machine']}, {cpu['cores']} cores; {', '.join(cpu['features'])}"),
        ("memory", f"{_memory():.0f} GiB"),
        ("Python", found["python"]),
        *found["tools"].items(),
        ("reference", ", ".join(line for line in environment.PINS.read_text().splitlines()
                                if line.startswith(("optimum", "torch", "transformers", "onnxruntime")))),
    ]  # fmt: skip
    return (
        f"# Results\n\nWritten by `{command}` on "
        f"{datetime.now(UTC):%Y-%m-%d}. Other programs share this machine, so only ratios taken in one run mean "
        "something.\nTargets that are not met say so.\n\n" + table(("machine", ""), rows)
    )


def _memory() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            return int(line.split()[1]) / 2**20
    return float("nan")


if __name__ == "__main__":
    main()
