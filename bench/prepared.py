"""What the measurements need beforehand, as JSON: the checkpoints of MiniLM in the bench's own store.

A process of its own, so that the measuring one stays small: a child's peak memory is never less than its parent's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.processes import HERE, STORE, python
from bench.report import tell

MANIFEST = HERE / "manifests" / "minilm-l6.yaml"


def folders() -> dict[str, Path]:
    """`downloaded`, `converted`, `int8` and `int4`, each a folder; builds what is missing."""
    tell("preparing MiniLM (the first time this fetches 84 MB and builds)")
    return {name: Path(path) for name, path in json.loads(python("-m", "bench.prepared").output).items()}


def main() -> None:
    """In the process of its own."""
    from modelkit import lock, manifest, pipeline  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415
    from modelkit.vocabulary import Fetching  # noqa: PLC0415

    read, locked, store = manifest.load(MANIFEST), lock.read(MANIFEST), Store(STORE)
    if locked is None:
        sys.exit("manifests/minilm-l6.yaml has no lock; run `modelkit lock manifests/minilm-l6.yaml`")
    found = {}
    for variant in read.variants.values():
        build = pipeline.Pins(store).prepare(read, variant, lock.read(MANIFEST), Fetching(MANIFEST.parent))
        found[variant.name] = pipeline.build(build, locked).folder
        found.update({name: build.artifact(name).folder for name in ("downloaded", "converted")})
    print(json.dumps({name: str(path) for name, path in found.items()}))


if __name__ == "__main__":
    main()
