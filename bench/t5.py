"""One file for encoder and decoder beside three: bytes, speed and memory, in CodeT5-small's true dimensions.

The weights are seeded: neither bytes nor speed depend on their values. Each layout is loaded in a process of its own
and the processes take turns: where a model's weights come to lie in memory changes its speed by a tenth, for as
long as it is loaded. A ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.processes import HERE, WORK, Ran, by_turns, peak, python
from bench.report import against, table
from modelkit import graphs, runtime
from modelkit.exporters import direct
from modelkit.graphs import files

sys.path.insert(0, str(HERE / "tests"))

from stand_ins.t5 import CODET5_SMALL, t5

ROUNDS, ANSWERS = 7, 5
PROMPTS = {64: 48, 256: 48}
"""Tokens of the text -> tokens of the answer."""
Array = np.ndarray[Any, Any]
HEADS, WIDTH, LAYERS = CODET5_SMALL["num_heads"], CODET5_SMALL["d_kv"], CODET5_SMALL["num_layers"]


def main() -> None:
    """Print the section."""
    source = t5(WORK / "t5" / "source", **CODET5_SMALL)
    weights = (source / "model.safetensors").stat().st_size
    layouts = {"one file": _built(source, split=False), "three files": _built(source, split=True)}
    # Bound as a default: a name of the loop would be the last one's by the time it is called.
    contestants = {name: lambda at=folder: python("-m", "bench.t5", at) for name, folder in layouts.items()}
    runs = by_turns(ROUNDS, contestants)
    _refuse_different_answers(runs)
    bytes_of = {name: sum(file.stat().st_size for file in folder.iterdir()) for name, folder in layouts.items()}
    _print(weights, bytes_of, runs)


def measure(folder: Path) -> dict[str, Any]:
    """Seconds per answer to a text of each length, its encoding included, and the answers."""
    sessions = {path.stem: runtime.Session(path, threads=1) for path in sorted(folder.glob("*.onnx"))}
    whole = sessions.get("model")
    answer: Callable[[Array, int], list[int]] = (
        (lambda ids, count: answer_of_one(whole, ids, count))
        if whole
        else (lambda ids, count: answer_of_three(sessions, ids, count))
    )
    seconds, answers = {}, {}
    for length, count in PROMPTS.items():
        ids = np.random.default_rng(length).integers(5, CODET5_SMALL["vocab_size"], (1, length))
        answers[str(length)] = answer(ids, count)  # warms up, too
        seconds[str(length)] = median(_seconds(lambda ids=ids, count=count: answer(ids, count)) for _ in range(ANSWERS))
    return {"seconds": seconds, "answers": answers}


def answer_of_one(session: Any, ids: Array, count: int) -> list[int]:
    """The `count` likeliest next tokens, one after the other; what a step gives is fed to the next as it is."""
    past = {name: np.zeros((1, HEADS, 0, WIDTH), np.float32) for name in session.inputs if name.startswith("past")}
    tokens = [0]
    for step in range(count):
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "decoder_input_ids": np.array([tokens[-1:]])}
        given = session.run({**feed, **past, "use_cache_branch": np.array([step > 0])})
        past = dict(zip(past, given[1:], strict=True))
        tokens.append(int(given[0][0, -1].argmax()))
    return tokens


def answer_of_three(sessions: dict[str, Any], ids: Array, count: int) -> list[int]:
    """The same with a file for the encoder, one for the first step and one for the others."""
    mask = {"encoder_attention_mask": np.ones_like(ids)}
    encoded = sessions["encoder_model"].run({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    later = sessions["decoder_with_past_model"]
    names = [name for name in later.inputs if name.startswith("past")]
    given = sessions["decoder_model"].run({**mask, "input_ids": np.array([[0]]), "encoder_hidden_states": encoded})
    past, tokens = dict(zip(names, given[1:], strict=True)), [0, int(given[0][0, -1].argmax())]
    for _ in range(count - 1):
        given = later.run({**mask, "input_ids": np.array([tokens[-1:]]), **past})
        past.update(zip(names, given[1:], strict=False))  # it gives the decoder's alone, which come first
        tokens.append(int(given[0][0, -1].argmax()))
    return tokens


def _built(source: Path, *, split: bool) -> Path:
    made = WORK / "t5" / ("split" if split else "whole")
    shutil.rmtree(made, ignore_errors=True)
    (made / "converted").mkdir(parents=True)
    (made / "finished").mkdir()
    manifest: Any = SimpleNamespace(task=SimpleNamespace(kind="text2text-generation", options=None))
    direct.export(manifest, source, made / "converted", direct.Options(split=split))
    for part in graphs.parts(made / "converted"):
        files.finish(graphs.checkpoint(made / "converted", part), made / "finished", part)
    return made / "finished"


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _refuse_different_answers(runs: dict[str, list[Ran]]) -> None:
    told = {json.dumps(json.loads(ran.output)["answers"]) for rounds in runs.values() for ran in rounds}
    if len(told) > 1:
        sys.exit("the two layouts give different tokens")


def _rates(runs: Sequence[Ran], length: int) -> list[float]:
    """Tokens per second of each round."""
    return [PROMPTS[length] / json.loads(ran.output)["seconds"][str(length)] for ran in runs]


def _print(weights: int, bytes_of: dict[str, int], runs: dict[str, list[Ran]]) -> None:
    print("## Encoder and decoder in one file\n\nCodeT5-small's dimensions, seeded weights, fp32, one thread, greedy; "
          f"{ROUNDS} processes each by turns, {ANSWERS} answers in each.\n")  # fmt: skip
    print(table(
        ("layout", "MB", *(f"tokens/s, text of {length}" for length in PROMPTS), "peak MB"),
        [(name, f"{size / 1e6:.1f}", *(f"{median(_rates(runs[name], length)):.1f}" for length in PROMPTS),
          f"{peak(runs[name]) / 1e6:.0f}") for name, size in bytes_of.items()],
    ))  # fmt: skip
    one, three = runs["one file"], runs["three files"]
    speed = [
        (f"speed of one file to three, text of {length}",
         median(a / b for a, b in zip(_rates(one, length), _rates(three, length), strict=True)), "{:.2f}x", ">=", 0.95)
        for length in PROMPTS
    ]  # fmt: skip
    print(against([("bytes to those of the weights", bytes_of["one file"] / weights, "{:.4f}x", "<=", 1.02), *speed]))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1])))) if sys.argv[1:] else main()
