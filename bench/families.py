"""The direct export against the optimum command for every family, on seeded weights in the published models' sizes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from bench.export import CONVERT, empty
from bench.processes import HERE, WORK, Ran, by_turns, optimum_command, peak, python, ratio, run, seconds
from bench.published import MANIFESTS, source
from bench.report import against, table, tell
from modelkit.reference.inside_export import TASKS

FAMILIES = {
    "multilingual-e5-small": ("feature-extraction", 3),
    "clip-vit-base-patch32": ("image-feature-extraction", 3),
    "codet5-small": ("text2text-generation", 3),
    "smollm2-135m-instruct": ("text-generation", 3),
    "mdeberta-v3-base-mnli-xnli": ("zero-shot-classification", 3),
    "bge-m3": ("feature-extraction", 1),
}
"""Manifest -> its task, rounds. Models of one family with a smaller one are left out, and GTE, which optimum lacks."""
ROOM = WORK / "families"
SEEDS, PASTS = 3, (0, 4)
CLOSE, NEAR = 5e-5, 0.999999


def main() -> None:
    """Print the section."""
    wanted = [name for name in FAMILIES if name in sys.argv[1:]] or list(FAMILIES)
    measured = {name: _measured(name) for name in wanted}
    print(
        "## Export, family by family\n\n`direct` is modelkit's convert stage, `optimum` the command `optimum-cli "
        "export onnx`, which validates its graph.\nWhole processes by turns, medians; the ratios are medians of the "
        "rounds' own. True sizes, seeded weights in float32\n(SmolLM2: bfloat16) as safetensors.\n"
    )
    print(table(
        ("model", "rounds", "weights MB", "direct s", "optimum s", "times faster", "direct peak MB", "optimum peak MB",
         "share"),
        [(name, str(FAMILIES[name][1]), f"{size / 1e6:.0f}", f"{seconds(runs['direct']):.2f}",
          f"{seconds(runs['optimum']):.2f}", f"{ratio(runs['optimum'], runs['direct']):.1f}x",
          f"{peak(runs['direct']) / 1e6:.0f}", f"{peak(runs['optimum']) / 1e6:.0f}",
          f"{ratio(runs['direct'], runs['optimum'], 'peak'):.2f}x") for name, (size, runs, _) in measured.items()],
    ))  # fmt: skip
    print(f"The graphs of `export: direct` and `export: optimum` side by side, every output, on {SEEDS * len(PASTS)} "
          "random batches of three padded texts\n(or three images); CodeT5 in three files each. Cosines are of rows, "
          "the last axis.\n")  # fmt: skip
    print(table(
        ("model", "outputs", "largest difference", "largest value", "least cosine"),
        [(name, str(found["outputs"]), f"{found['largest']:.1e}", f"{found['scale']:.1f}", f"{found['cosine']:.8f}")
         for name, (_, _, found) in measured.items()],
    ))  # fmt: skip
    print(against([row for name, (_, _, found) in measured.items() for row in (
        (f"{name}: largest difference", found["largest"], "{:.1e}", "<=", CLOSE),
        (f"{name}: least cosine", found["cosine"], "{:.8f}", ">=", NEAR),
    )]))  # fmt: skip


def _measured(name: str) -> tuple[int, dict[str, list[Ran]], dict[str, Any]]:
    """Bytes of the weights, the runs by turns, and how far the graphs are apart."""
    tell(f" {name}: making the weights")
    task, rounds = FAMILIES[name]
    made, ours, theirs = source(name), ROOM / "direct", ROOM / "optimum"
    # Both graphs are made here once already: files and programs are in memory before anything counts.
    found = json.loads(python("-m", "bench.families", "compare", name, made).output.splitlines()[-1])
    command, size = optimum_command(), sum(path.stat().st_size for path in made.glob("*.safetensors"))

    def direct() -> Ran:
        return python("-c", CONVERT, MANIFESTS / f"{name}.yaml", made, empty(ours))

    def optimum() -> Ran:
        arguments = ("export", "onnx", "--model", made, "--task", TASKS[task][1], empty(theirs))
        return run([command, *arguments], HF_HUB_OFFLINE="1")

    runs = by_turns(rounds, {"direct": direct, "optimum": optimum}, warm_up=False)
    for folder in (ROOM, made):
        shutil.rmtree(folder)
    return size, runs, found


def compare(name: str, made: Path) -> None:
    """Export both ways, run both on the same inputs and print the differences as JSON. A process of its own."""
    import dataclasses  # noqa: PLC0415

    from modelkit import manifest  # noqa: PLC0415
    from modelkit.exporters import direct, optimum  # noqa: PLC0415

    sys.path.insert(0, str(HERE / "tests"))
    from legal_inputs import signatures_of  # noqa: PLC0415

    read = manifest.load(MANIFESTS / f"{name}.yaml")
    ours, theirs = (empty(ROOM / folder) for folder in ("one", "other"))
    direct.export(read, made, ours, direct.Options(split=read.task.kind == "text2text-generation"))
    signatures = signatures_of(ours)
    optimum.export(dataclasses.replace(read, signatures=signatures), made, theirs, optimum.Options())
    config = json.loads((made / "config.json").read_text())
    words = config.get("vocab_size") or config["text_config"]["vocab_size"]
    told = {part: _differences(ours, theirs, part, signature, words) for part, signature in signatures.items()}
    print(json.dumps({
        "outputs": sum(found["outputs"] for found in told.values()),
        "largest": max(found["largest"] for found in told.values()),
        "scale": max(found["scale"] for found in told.values()),
        "cosine": min(found["cosine"] for found in told.values()),
    }))  # fmt: skip


def _differences(ours: Path, theirs: Path, part: str, signature: Any, words: int) -> dict[str, float]:
    import numpy as np  # noqa: PLC0415

    from legal_inputs import feeds, meaningful  # noqa: PLC0415

    given = [feeds(signature, words, past, seed) for seed in range(SEEDS) for past in PASTS]
    one, other = (_results(folder, part, given) for folder in (ours, theirs))
    largest = scale = 0.0
    cosine = 1.0
    for feed, first, second in zip(given, one, other, strict=True):
        for spec in signature.outputs:
            a, b = (meaningful(spec, result[spec.name], feed).astype(np.float64) for result in (first, second))
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                sys.exit(f"{part}: {spec.name} is not finite")
            largest, scale = max(largest, float(np.abs(a - b).max())), max(scale, float(np.abs(a).max()))
            lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosine = min(cosine, float(((a * b).sum(1) / lengths).min()))
    return {"outputs": len(signature.outputs), "largest": largest, "scale": scale, "cosine": cosine}


def _results(folder: Path, part: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of one graph at a time: two of the largest need not be in memory together."""
    from modelkit import graphs, runtime  # noqa: PLC0415

    session = runtime.Session(graphs.parts(folder)[part], threads=1)
    return [dict(zip(session.outputs, session.run(feed), strict=True)) for feed in given]


if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        compare(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
