"""A cold run beside the optimum command line, and a warm run beside a cold one, on MiniLM's real weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from bench.prepared import MANIFEST, folders
from bench.processes import HERE, STORE, WORK, Ran, by_turns, optimum_command, python, ratio, run, seconds
from bench.report import against, table

COLD, WARM = 3, 9
ROOM = WORK / "runs"
ANY_VERDICT = (0, 1)
"""A check that fails takes as long as one that passes; how many failed is said."""

WATCHED = """
import sys, pytest
code = pytest.main(sys.argv[1:])
print("imported:", *(name for name in ("onnxruntime", "onnx", "numpy", "tokenizers", "yaml") if name in sys.modules))
sys.exit(code)
"""


def main() -> None:
    """Print the section."""
    optimum, source = optimum_command(), folders()["downloaded"]
    cold = by_turns(
        COLD, {"optimum": lambda: _optimum(optimum, source), "cold": lambda: _ours(_fresh(source))}
    )  # fmt: skip
    warm = [_ours(ROOM / "store") for _ in range(WARM + 1)][1:]
    bare = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:modelkit", "--collect-only", ROOM / "empty")
    idle = [python(*bare, codes=(5,)) for _ in range(WARM)]
    watched = python("-c", WATCHED, *_arguments(), codes=ANY_VERDICT, MODELKIT_STORE=str(ROOM / "store")).output
    imported = re.findall(r"^imported: ?(.*)$", watched, re.MULTILINE)[-1].split()
    share = seconds(warm) / seconds(cold["cold"])
    print(f"""## Runs

`pytest --modelkit {MANIFEST.relative_to(HERE)}`: int8 and int4 built, all checks, evidence written. Cold: a fresh store
that holds the downloaded checkpoint only, an empty build folder. Warm: the same again. Whole processes; medians of
{COLD} rounds by turns with the optimum command line after one warm-up, of {WARM} warm runs.
""")
    print(table(
        ("run", "seconds", "result"),
        [
            ("`optimum-cli export onnx`, then `onnxruntime quantize --avx512_vnni --per_channel`",
             f"{seconds(cold['optimum']):.2f}", "one int8 model, no checks"),
            ("cold", f"{seconds(cold['cold']):.2f}", _result(cold["cold"][-1])),
            ("warm", f"{seconds(warm):.3f}", _result(warm[-1])),
            ("pytest on an empty folder, without the plugin", f"{seconds(idle):.3f}", "the least a run can take"),
        ],
    ))  # fmt: skip
    print(against([
        ("cold run, times the optimum command line", ratio(cold["cold"], cold["optimum"]), "{:.2f}x", "<=", 0.5),
        ("warm run, percent of cold", share * 100, "{:.1f} %", "<=", 2),
        ("onnxruntime imported in a warm run", int("onnxruntime" in imported), "{}", "<=", 0),
    ]))  # fmt: skip
    print(f"A warm run imported {', '.join(imported) or 'none'} of onnxruntime, onnx, numpy, tokenizers and yaml. Less "
          f"pytest itself on an empty folder,\na warm run takes {seconds(warm) - seconds(idle):.3f} s.\n")  # fmt: skip


def _fresh(source: Path) -> Path:
    """A store with the downloaded checkpoint and nothing else. Made outside the measured time."""
    shutil.rmtree(ROOM, ignore_errors=True)
    (ROOM / "empty").mkdir(parents=True)
    entry = source.parent
    shutil.copytree(entry, ROOM / "store" / entry.relative_to(STORE))
    return ROOM / "store"


def _arguments() -> list[str | Path]:
    return ["--modelkit", MANIFEST, "--modelkit-build", ROOM / "build", "-p", "no:cacheprovider"]


def _ours(store: Path) -> Ran:
    return python("-m", "pytest", *_arguments(), codes=ANY_VERDICT, MODELKIT_STORE=str(store))


def _optimum(command: Path, source: Path) -> Ran:
    exported, quantized = (WORK / "optimum" / name for name in ("exported", "quantized"))
    shutil.rmtree(exported.parent, ignore_errors=True)
    arguments = ("export", "onnx", "--model", source, "--task", "feature-extraction", exported)
    first = run([command, *arguments], HF_HUB_OFFLINE="1")
    quantize = ("onnxruntime", "quantize", "--onnx_model", exported, "--avx512_vnni", "--per_channel", "-o", quantized)
    return first.then(run([command, *quantize], HF_HUB_OFFLINE="1"))


def _result(ran: Ran) -> str:
    """pytest's last line, without its own stopwatch."""
    return re.findall(r"=+ (.*?) in [\d.]+s", ran.output)[-1]


if __name__ == "__main__":
    main()
