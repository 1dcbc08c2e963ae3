"""`python -m bench`: the measurements of a page one after the other; each takes the place of its former section."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.processes import HERE, python
from bench.report import tell
from modelkit.reference import environment

# Speed comes first: minutes of building slow a processor down, and integer and float kernels not alike.
RESULTS = ("speed", "export", "runs", "stale", "startup", "prove", "bisect", "neighbours")
FAMILIES = ("families", "generation")
PAGES = {"RESULTS.md": RESULTS, "FAMILIES.md": FAMILIES}
"""File -> its sections, each the name of a module here."""
HEAD = """# Results

Written by `python -m bench`, section by section. Other programs share the machine, so only ratios taken in one run mean
something. Targets that are not met say so.
"""
TOOLS = ("onnx", "onnxruntime", "numpy", "tokenizers", "pytest")
REFERENCE = ("speed", "export", "runs", "families", "generation")
"""Sections that measure the reference environment as well."""

MACHINE = """
import json, platform
from importlib.metadata import version
from modelkit.runtime import cpu
print(json.dumps({"cpu": dict(cpu()), "tools": {"Python": platform.python_version(),
                  **{name: version(name) for name in %r}}}))
"""


def main() -> None:
    """Measure the sections named, or all of RESULTS.md. One that fails leaves its page as it was, and ends the rest."""
    named = sys.argv[1:] or RESULTS
    known = (*RESULTS, *FAMILIES)
    if unknown := sorted(set(named) - set(known)):
        sys.exit(f"nothing measures {', '.join(unknown)}; there are {', '.join(known)}")
    for name in (name for name in known if name in named):
        tell(f"{name}:")
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=HERE, stdout=subprocess.PIPE, text=True,
                              check=False)  # fmt: skip
        page = next(page for page, sections in PAGES.items() if name in sections)
        if done.returncode:
            sys.exit(f"bench.{name} ended with exit code {done.returncode}; {page} is left as it was")
        heading, _, rest = done.stdout.strip().partition("\n")
        section = f"{heading}\n\n{_measured(name)}\n{rest}\n"
        _put(Path(__file__).with_name(page), name, section)
        print(section)


def _put(page: Path, name: str, section: str) -> None:
    """Write the section in its place on the page."""
    found = re.split(r"^<!-- (\w+) -->\n", page.read_text(encoding="utf-8") if page.exists() else HEAD, flags=re.M)[1:]
    sections = {**dict(zip(found[::2], found[1::2], strict=True)), name: section}
    ordered = [f"<!-- {one} -->\n{sections[one].strip()}\n" for one in PAGES[page.name] if one in sections]
    page.write_text("\n".join([HEAD, *ordered]), encoding="utf-8")


def _measured(name: str) -> str:
    found = json.loads(python("-c", MACHINE % (TOOLS,)).output)
    cpu = found["cpu"]
    tools = [f"{tool} {release}" for tool, release in found["tools"].items()]
    if name in REFERENCE:
        pinned = [line.replace("==", " ") for line in environment.PINS.read_text().splitlines()]
        tools.append(f"beside {', '.join(line for line in pinned if line.startswith(('optimum', 'torch', 'tr')))}")
    cores = f"{cpu['cores']} cores ({', '.join(cpu['features'])})"
    machine = f"{cpu['system']} {cpu['machine']}, {cores}, {_memory():.0f} GiB"
    return f"`python -m bench.{name}`, {datetime.now(UTC):%Y-%m-%d}: {machine}; {', '.join(tools)}."


def _memory() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            return int(line.split()[1]) / 2**20
    return float("nan")


if __name__ == "__main__":
    main()
