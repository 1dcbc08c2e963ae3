"""One loaded model in a process of its own, told by lines on standard input what to do; one JSON line per answer.

`python -m bench.worker MODEL TOKENIZER`; then `once THREADS` and `batches THREADS` time a round, `vectors FILE` writes
the corpus'.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime  # noqa: F401  so that what is timed below is the model alone
from tokenizers import Tokenizer

from bench.texts import BATCH, IN_BATCHES, ONE_BY_ONE, corpus, feeds, spread
from modelkit import runtime

OUTPUT = "sentence_embedding"


def main() -> None:
    """Load, report, obey."""
    tokenizer = Tokenizer.from_file(sys.argv[2])
    texts = corpus()
    # Timed batches hold texts of like length, as `Embedder.embed` makes them: padding is measured elsewhere.
    rounds = {
        "once": feeds(tokenizer, spread(ONE_BY_ONE), 1),
        "batches": feeds(tokenizer, sorted(spread(IN_BATCHES), key=len), BATCH),
    }
    before, start = resident(), perf_counter()
    session = runtime.Session(Path(sys.argv[1]), threads=1)
    sessions = {1: session}
    _answer(load=perf_counter() - start, resident=resident(), before=before)
    for line in sys.stdin:
        order, _, argument = line.strip().partition(" ")
        if order == "vectors":
            alone, together = (_vectors(session, feeds(tokenizer, texts, size)) for size in (1, BATCH))
            np.savez(argument, alone=alone, together=together)
            _answer()
            continue
        threads = int(argument)
        if threads not in sessions:
            sessions[threads] = runtime.Session(Path(sys.argv[1]), threads)
        start = perf_counter()
        for feed in rounds[order]:
            sessions[threads].run(feed, [OUTPUT])
        _answer(seconds=perf_counter() - start)


def _answer(**figures: float) -> None:
    print(json.dumps(figures), flush=True)


def _vectors(session: runtime.Session, batches: list[dict[str, Any]]) -> Any:
    return np.concatenate([session.run(feed, [OUTPUT])[0] for feed in batches])


def resident() -> int:
    """Bytes of this process in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
