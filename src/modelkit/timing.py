"""What a finished folder costs: `python -m modelkit.timing FOLDER` loads it in this process, alone, and measures.

It reads a JSON list of texts on standard input and prints one JSON object; the cost check runs it once for the artifact
and once for the float32 model, by turns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

THREADS = 1
"""One: what a second thread brings depends on what else the machine does."""
REPEATS = 3
BATCH = 32


def measure(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Seconds to load, seconds per text one by one, texts per second in batches, bytes of memory beyond the libraries'.

    Each text runs three times after a first time that does not count; its fastest counts, because other work on the
    machine only ever adds.
    """
    from modelkit import model  # noqa: PLC0415

    _import_libraries(folder)
    before = peak_bytes()
    start = perf_counter()
    loaded = model.load(folder, THREADS)
    loaded.outputs(texts[:1])
    load = perf_counter() - start
    loaded.outputs(texts, batch_size=BATCH)
    alone = [min(_seconds(loaded, [text], 1) for _ in range(REPEATS)) for text in texts]
    together = min(_seconds(loaded, texts, BATCH) for _ in range(REPEATS))
    return {
        "load": load,
        "alone": alone,
        "texts_per_second": len(texts) / together,
        "memory": max(peak_bytes() - before, 1),
    }


def _import_libraries(folder: Path) -> None:
    """Import all that a task imports when it first needs it.

    The libraries are no part of the model: a constant on both sides would draw every ratio towards 1.
    """
    import jinja2.sandbox  # noqa: F401, PLC0415
    import PIL.ImageOps  # noqa: PLC0415
    import tokenizers  # noqa: F401, PLC0415

    from modelkit import images, model, runtime  # noqa: F401, PLC0415
    from modelkit.generation import answers, caches, chat  # noqa: F401, PLC0415

    PIL.Image.preinit()  # the usual formats, which the first image would bring
    runtime.version()
    model.read_card(folder)  # its task, and what validates options


def _seconds(model: Any, texts: Sequence[str], batch_size: int) -> float:
    start = perf_counter()
    model.outputs(texts, batch_size=batch_size)
    return perf_counter() - start


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Of this program alone; getrusage counts what its parent held before it became this program, too.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Entry point of the measuring process."""
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), json.load(sys.stdin))) + "\n")


if __name__ == "__main__":
    main()
