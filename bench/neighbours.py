"""Does the search of the invariance check find worse neighbours than chance does, in the same seconds?

The weights are real: MiniLM's, and those of the four models in tests/learned, which have learned a small task to the
end.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.prepared import MANIFEST, folders
from bench.processes import HERE, STORE, WORK, python
from bench.report import against, table, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelkit.checks.invariance import Neighbours

SECONDS, SEEDS = 5.0, 3
BUDGET = 10**6
"""Batches a search may try; time ends it long before."""
LEARNED = HERE / "tests" / "learned"
MODELS = ("minilm-l6", "llama-files", "llama-summaries", "t5-summaries", "deberta-entailment")
WAYS = ("random", "drawn", "search")


def main() -> None:
    """Print the section."""
    folders()
    rows, targets = [], []
    for name in MODELS:
        tell(f"  {name}")
        found = json.loads(python("-m", "bench.neighbours", name).output.splitlines()[-1])
        worst = {way: [run["worst"] for run in found["runs"][way]] for way in WAYS}
        ratios = {way: [a / b for a, b in zip(worst["search"], worst[way], strict=True)] for way in WAYS[:2]}
        batches = (f"{median(run['batches'] for run in found['runs'][way]):.0f}" for way in WAYS)
        rows.append((name, found["of"], *batches, *(f"{median(worst[way]):.5f}" for way in WAYS),
                     f"{median(ratios['random']):.2f}x", f"{min(ratios['random']):.2f}x",
                     f"{median(ratios['drawn']):.2f}x"))  # fmt: skip
        targets.append((f"{name}: times random search", median(ratios["random"]), "{:.2f}x", ">=", 2.0))
    print(f"""## Neighbours

Models with onnxruntime's dynamic int8, whose scales are computed over a whole batch; {SECONDS:.0f} seconds for each
way, by turns, with {SEEDS} seeds. The figure is the largest distance (one minus the cosine) of any text of any batch
from what it gets alone. Random: batches of two to ten texts of the corpus. Drawn: batches of what the search of the
invariance check draws from, without what it has found so far. All three judge every text of a batch, and run no text
alone twice.
Medians of the seeds, and of their own ratios.
""")
    print(table(
        ("model", "of", *(f"batches, {way}" for way in WAYS), *(f"worst, {way}" for way in WAYS),
         "times random", "least", "times drawn"), rows,
    ))  # fmt: skip
    print(against(targets))


def measure(name: str) -> None:
    """One JSON line: what each way found with each seed."""
    from modelkit import corpora, distances, manifest, model  # noqa: PLC0415

    path = MANIFEST if name == "minilm-l6" else LEARNED / f"{name}.yaml"
    read = manifest.load(path)
    loaded, distance = model.load(_dynamic(name, path)), distances.of_task(read)
    texts = [row["text"] for row in corpora.rows(read)[0]]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for seed in range(SEEDS):
        # What slows the machine down for a while does not always hit the same one.
        for way in WAYS[seed % len(WAYS) :] + WAYS[: seed % len(WAYS)]:
            seen = _timed(loaded, distance)
            try:
                {"random": _random, "drawn": _drawn, "search": _search}[way](seen, texts, seed)
            except _OverError:
                runs[way].append({"worst": seen.worst(1)[0].distance, "batches": seen.batches})
    print(json.dumps({"of": "vectors" if distance is distances.of_vectors else "logits", "runs": runs}))


class _OverError(Exception):
    """The time is up."""


def _timed(loaded: Any, distance: Callable[[Any, Any], Any]) -> Neighbours:
    from modelkit.checks.invariance import Neighbours  # noqa: PLC0415

    class Timed(Neighbours):
        """Ends when its time is up."""

        def beside(self, texts: Sequence[str]) -> float:
            if perf_counter() > end:
                raise _OverError
            return super().beside(texts)

    end = perf_counter() + SECONDS
    return Timed(loaded, distance)


def _random(seen: Neighbours, texts: Sequence[str], seed: int) -> None:
    from modelkit.checks.invariance import MOST  # noqa: PLC0415

    drawn = random.Random(seed)
    while True:
        seen.beside(drawn.sample(texts, drawn.randint(2, MOST)))


def _drawn(seen: Neighbours, texts: Sequence[str], seed: int) -> None:
    from modelkit import searching  # noqa: PLC0415
    from modelkit.checks.invariance import ROUND, batches  # noqa: PLC0415

    for number in range(BUDGET):
        searching.worst(batches(texts), seen.beside, ROUND, seed * BUDGET + number)


def _search(seen: Neighbours, texts: Sequence[str], seed: int) -> None:
    from modelkit.checks.invariance import search  # noqa: PLC0415

    search(seen, texts, BUDGET, seed * BUDGET)


def _dynamic(name: str, path: Path) -> Path:
    """A finished folder whose graph is the dynamic int8 of the model's float32 one."""
    from modelkit import manifest, pipeline  # noqa: PLC0415
    from modelkit.schemes import int8_dynamic  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415
    from modelkit.vocabulary import Fetching  # noqa: PLC0415

    if name == "minilm-l6":
        found = folders()
        finished, converted = found["int8"], found["converted"]
    else:
        read = manifest.load(path)
        build = pipeline.Pins(Store(STORE)).prepare(read, read.variants["int8"], None, Fetching(path.parent))
        finished, converted = pipeline.build(build).folder, build.artifact("converted").folder
    into = WORK / "neighbours" / name
    shutil.rmtree(into, ignore_errors=True)
    left = shutil.ignore_patterns("*.onnx*", "SHA256SUMS")
    shutil.copytree(finished, into, ignore=left, copy_function=shutil.copyfile)
    into.chmod(0o755)
    int8_dynamic.quantize(converted, into, int8_dynamic.Options())
    return into


if __name__ == "__main__":
    measure(sys.argv[1]) if sys.argv[1:] else main()
