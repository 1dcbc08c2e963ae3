"""Tokens per second with the cache between steps: CodeT5 in one file, in three, in torch; SmolLM2 and torch.

True dimensions, seeded weights: neither bytes nor speed depend on their values. Each contestant is loaded in a process
of its own and the processes take turns: where a model's weights come to lie in memory changes its speed by a tenth, for
as long as it is loaded. A ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.answers import ANSWERS, PROMPTS
from bench.export import empty
from bench.processes import WORK, Ran, by_turns, optimum_command, peak, python, run
from bench.published import MANIFESTS, source
from bench.report import against, table, tell

ROOM = WORK / "generation"
TORCH = "torch"


@dataclass(frozen=True)
class Generator:
    """A manifest, how many rounds, and the layouts it is built in: their names, and whether they are split."""

    manifest: str
    rounds: int
    layouts: dict[str, bool]


GENERATORS = (
    Generator("codet5-small", 5, {"one file": False, "three files": True}),
    Generator("smollm2-135m-instruct", 3, {"one file": False}),
)


def main() -> None:
    """Print the section."""
    print(
        "## Generation\n\nGreedy, one text at a time, fp32, one thread, the reading of the text included; the loop of "
        "`modelkit.generation` and one of\ntorch with its cache. Processes by turns, "
        f"{ANSWERS} answers in each.\n"
    )
    for generator in GENERATORS:
        _print(generator, *_measured(generator))


def _measured(generator: Generator) -> tuple[int, dict[str, int], dict[str, list[Ran]]]:
    """Bytes of the weights, bytes of each layout, and the runs by turns."""
    tell(f" {generator.manifest}: making the weights")
    made, interpreter = source(generator.manifest), optimum_command().with_name("python")
    contestants: dict[str, Callable[[], Ran]] = {}
    bytes_of = {}
    for name, split in generator.layouts.items():
        folder = empty(ROOM / name.replace(" ", "-"))
        python("-m", "bench.generation", "build", generator.manifest, made, folder, "split" if split else "whole")
        bytes_of[name] = sum(path.stat().st_size for path in folder.glob("*.onnx*"))
        contestants[name] = partial(python, "-m", "bench.generation", "measure", made, folder)
    contestants[TORCH] = partial(run, [interpreter, "-m", "bench.torch_answers", made], HF_HUB_OFFLINE="1")
    weights = sum(path.stat().st_size for path in made.glob("*.safetensors"))
    return weights, bytes_of, by_turns(generator.rounds, contestants)


def build(name: str, made: Path, folder: Path, layout: str) -> None:
    """The finished float32 model in `folder`, in a process of its own: a child's peak is never below its parent's."""
    from modelkit import graphs, manifest  # noqa: PLC0415
    from modelkit.exporters import direct  # noqa: PLC0415
    from modelkit.graphs import files  # noqa: PLC0415

    converted = empty(ROOM / "converted")
    direct.export(manifest.load(MANIFESTS / f"{name}.yaml"), made, converted, direct.Options(split=layout == "split"))
    for part in graphs.parts(converted):
        files.finish(graphs.checkpoint(converted, part), folder, part)


def measure(made: Path, folder: Path) -> None:
    """Print the times and the answers of one layout as JSON."""
    from bench.answers import measured  # noqa: PLC0415
    from modelkit import graphs  # noqa: PLC0415
    from modelkit.generation import caches  # noqa: PLC0415
    from modelkit.runtime import Sessions  # noqa: PLC0415
    from modelkit.vocabulary import WHOLE  # noqa: PLC0415

    config = json.loads((made / "config.json").read_text())
    sessions, start = Sessions(graphs.parts(folder), threads=1), config.get("decoder_start_token_id")
    steps: Any = caches.Causal(sessions[WHOLE], 0) if start is None else caches.seq2seq(sessions, 0, start)

    def answer(ids: list[int], count: int) -> list[int]:
        tokens = [int(steps.first([ids])[0].argmax())]
        while len(tokens) < count:
            tokens.append(int(steps.following(tokens[-1:])[0].argmax()))
        return tokens

    print(json.dumps(measured(answer, config["vocab_size"])))


def _print(generator: Generator, weights: int, bytes_of: dict[str, int], runs: dict[str, list[Ran]]) -> None:
    print(f"{generator.manifest}, {generator.rounds} rounds:\n")
    print(table(
        ("layout", "MB", *(f"tokens/s, text of {length}" for length in PROMPTS), "peak MB", "tokens as torch's"),
        [(name, f"{bytes_of.get(name, weights) / 1e6:.1f}",
          *(f"{median(_rates(made, length)):.1f}" for length in PROMPTS), f"{peak(made) / 1e6:.0f}",
          "{} of {}".format(*_same(made, runs[TORCH]))) for name, made in runs.items()],
    ))  # fmt: skip
    first, *others = runs
    rows = [
        (f"speed of {first} to {other}, text of {length}", _faster(runs[first], runs[other], length), "{:.2f}x", ">=",
         1.0 if other == TORCH else 0.95) for other in others for length in PROMPTS
    ]  # fmt: skip
    if len(bytes_of) > 1:
        rows.insert(0, ("bytes to those of the weights", bytes_of[first] / weights, "{:.4f}x", "<=", 1.02))
    print(against(rows))


def _faster(one: Sequence[Ran], other: Sequence[Ran], length: int) -> float:
    return median(a / b for a, b in zip(_rates(one, length), _rates(other, length), strict=True))


def _rates(runs: Sequence[Ran], length: int) -> list[float]:
    """Tokens per second of each round."""
    return [PROMPTS[length] / _told(ran)["seconds"][str(length)] for ran in runs]


def _same(runs: Sequence[Ran], reference: Sequence[Ran]) -> tuple[int, int]:
    """How many tokens of the last round's answers are the reference's, and how many there are."""
    pairs = [pair for length, tokens in _told(runs[-1])["answers"].items()
             for pair in zip(tokens, _told(reference[-1])["answers"][length], strict=True)]  # fmt: skip
    return sum(a == b for a, b in pairs), len(pairs)


def _told(ran: Ran) -> dict[str, Any]:
    """Its last line; libraries may have said something before."""
    told: dict[str, Any] = json.loads(ran.output.strip().splitlines()[-1])
    return told


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["build", name, made, folder, layout]:
            build(name, Path(made), Path(folder), layout)
        case ["measure", made, folder]:
            measure(Path(made), Path(folder))
        case _:
            main()
