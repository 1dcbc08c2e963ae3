"""One file for encoder and decoder beside three: bytes and tokens per second, in CodeT5-small's true dimensions.

The weights are seeded: neither bytes nor speed depend on their values. Both layouts are loaded in one process and take
turns, in the opposite order every other round; a ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.processes import HERE, WORK
from bench.report import against, table, tell
from modelkit import graphs, runtime
from modelkit.exporters import direct
from modelkit.graphs import files

sys.path.insert(0, str(HERE / "tests"))

from stand_ins.t5 import CODET5_SMALL, t5  # noqa: E402

ROUNDS = 7
PROMPTS = {64: 48, 256: 48}
"""Tokens of the text -> tokens of the answer."""
Array = np.ndarray[Any, Any]
HEADS, WIDTH, LAYERS = CODET5_SMALL["num_heads"], CODET5_SMALL["d_kv"], CODET5_SMALL["num_layers"]


def main() -> None:
    """Print the section."""
    source = t5(WORK / "t5" / "source", **CODET5_SMALL)
    weights = (source / "model.safetensors").stat().st_size
    one, three = _built(source, split=False), _built(source, split=True)
    bytes_of = {name: sum(file.stat().st_size for file in folder.iterdir())
                for name, folder in (("one file", one), ("three files", three))}  # fmt: skip
    loaded = runtime.Session(one / "model.onnx", threads=1)
    sessions = {path.stem: runtime.Session(path, threads=1) for path in three.glob("*.onnx")}
    tell("  both layouts are loaded")
    answers: dict[str, Callable[[Array, int], list[int]]] = {
        "one file": lambda ids, count: answer_of_one(loaded, ids, count),
        "three files": lambda ids, count: answer_of_three(sessions, ids, count),
    }
    rates = {length: _rates(answers, length, count) for length, count in PROMPTS.items()}
    _print(weights, bytes_of, rates)


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


def _rates(answers: dict[str, Callable[[Array, int], list[int]]], length: int, count: int) -> dict[str, list[float]]:
    """Tokens per second of each round, the text's encoding included."""
    ids = np.random.default_rng(length).integers(5, CODET5_SMALL["vocab_size"], (1, length))
    found: dict[str, list[float]] = {name: [] for name in answers}
    if len({tuple(answer(ids, count)) for answer in answers.values()}) > 1:  # warms up, too
        sys.exit("the two layouts give different tokens")
    for number in range(ROUNDS):
        for name in list(answers)[:: 1 if number % 2 else -1]:
            start = perf_counter()
            answers[name](ids, count)
            found[name].append(count / (perf_counter() - start))
    tell(f"  {ROUNDS} rounds with a text of {length} tokens")
    return found


def _print(weights: int, bytes_of: dict[str, int], rates: dict[int, dict[str, list[float]]]) -> None:
    print("## Encoder and decoder in one file\n\nCodeT5-small's dimensions, seeded weights, float32, one thread, greedy, "
          f"{ROUNDS} rounds by turns.\n")  # fmt: skip
    print(table(
        ("layout", "MB", *(f"tokens/s, text of {length}" for length in rates)),
        [(name, f"{size / 1e6:.1f}", *(f"{median(rounds[name]):.1f}" for rounds in rates.values()))
         for name, size in bytes_of.items()],
    ))  # fmt: skip
    speed = [
        (f"speed of one file to three, text of {length}",
         median(a / b for a, b in zip(rounds["one file"], rounds["three files"], strict=True)), "{:.2f}x", ">=", 0.95)
        for length, rounds in rates.items()
    ]  # fmt: skip
    print(against([("bytes to those of the weights", bytes_of["one file"] / weights, "{:.4f}x", "<=", 1.02), *speed]))


if __name__ == "__main__":
    main()
