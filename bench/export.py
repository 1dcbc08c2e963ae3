"""The direct export against the optimum command, as whole processes, on MiniLM's real weights."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from bench.prepared import MANIFEST, folders
from bench.processes import WORK, Ran, by_turns, optimum_command, peak, python, ratio, run, seconds
from bench.report import against, table

ROUNDS = 5
TEXTS = 50

CONVERT = """
import sys
from pathlib import Path
from modelkit import manifest
from modelkit.stages import convert
from modelkit.stages.job import Job
read = manifest.load(Path(sys.argv[1]))
job = Job(read, next(iter(read.variants.values())), {})
convert.run(job, {"downloaded": Path(sys.argv[2])}, Path(sys.argv[3]))
"""
"""The convert stage: the tokenizer verified, `exporters.direct.export`, the consumer's files copied."""

UNVALIDATED = """
import sys
from optimum.exporters.onnx import main_export
main_export(sys.argv[1], sys.argv[2], task="feature-extraction", library_name="transformers", do_validation=False)
"""
"""The command cannot be told to leave its validation out; the function behind it can."""


def main() -> None:
    """Print the section."""
    optimum, source = optimum_command(), folders()["downloaded"]
    ours, theirs, bare = (WORK / "export" / name for name in ("ours", "optimum", "unvalidated"))

    def export_ours() -> Ran:
        return python("-c", CONVERT, MANIFEST, source, empty(ours))

    def export_theirs() -> Ran:
        arguments = ("export", "onnx", "--model", source, "--task", "feature-extraction", empty(theirs))
        return run([optimum, *arguments], HF_HUB_OFFLINE="1")

    def export_bare() -> Ran:
        return run([optimum.with_name("python"), "-c", UNVALIDATED, source, empty(bare)], HF_HUB_OFFLINE="1")

    names = ("direct", "optimum-cli", "optimum, not validated")
    runs = by_turns(ROUNDS, dict(zip(names, (export_ours, export_theirs, export_bare), strict=True)))
    compared = json.loads(python("-m", "bench.export", "compare", ours, theirs).output)
    direct = runs["direct"]
    print(f"## Export\n\nWhole processes, median of {ROUNDS} rounds by turns after one warm-up; ratios are medians of "
          "the rounds' own ratios.\nThe optimum command validates its graph against torch and cannot be told not to; "
          "the third row is the function\nbehind it with the validation off. `direct` is modelkit's convert stage: "
          "tokenizer verified, graph with pooling\nwritten, consumer files copied.\n")  # fmt: skip
    print(table(
        ("process", "seconds", "times direct", "peak MB", "direct's share of it"),
        [(name, f"{seconds(r):.2f}", f"{ratio(r, direct):.1f}x", f"{peak(r) / 1e6:.0f}",
          f"{ratio(direct, r, 'peak'):.2f}x") for name, r in runs.items()],
    ))  # fmt: skip
    print(against([
        ("times faster than the optimum command", ratio(runs["optimum-cli"], direct), "{:.1f}x", ">=", 5),
        ("share of its peak memory", ratio(direct, runs["optimum-cli"], "peak"), "{:.3f}x", "<=", 0.25),
    ]))  # fmt: skip
    print(f"Largest difference between the two graphs' `last_hidden_state` on {compared['texts']} texts of the corpus: "
          f"{compared['largest']:.1e}\n(largest absolute value {compared['scale']:.1f}).\n")  # fmt: skip


def empty(folder: Path) -> Path:
    """It, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def compare(ours: Path, theirs: Path) -> None:
    """Run both graphs on the same token ids and print the largest difference as JSON."""
    import numpy as np  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    from bench.texts import feeds, spread  # noqa: PLC0415
    from modelkit.runtime import Session  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(ours / "tokenizer.json"))
    one, other = (Session(folder / "model.onnx", threads=1) for folder in (ours, theirs))
    largest = scale = 0.0
    for feed in feeds(tokenizer, spread(TEXTS), 1):
        a, b = (session.run(feed, ["last_hidden_state"])[0] for session in (one, other))
        largest, scale = max(largest, float(np.abs(a - b).max())), max(scale, float(np.abs(a).max()))
    print(json.dumps({"largest": largest, "scale": scale, "texts": TEXTS}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        compare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
