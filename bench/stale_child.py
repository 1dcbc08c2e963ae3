"""One build and its checks in a fresh process, for stale.py: prints what was made and what was reused, as JSON.

`python -m bench.stale_child MANIFEST [tool=VERSION | module:NAME=JSON | processor=JSON]`: told first what to pretend.
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from modelkit import conformance, manifest, pipeline, runtime
from modelkit.stages import job
from modelkit.store import Store
from modelkit.vocabulary import Fetching


def main() -> None:
    """Per variant: the key of each stage, the artifact's digest, each check's outcome and whether it was reused."""
    tools: dict[str, str] = {}
    for argument in sys.argv[2:]:
        name, _, value = argument.partition("=")
        if ":" in name:
            module, attribute = name.split(":")
            setattr(importlib.import_module(module), attribute, json.loads(value))
        elif name == "processor":
            runtime.cpu = partial(json.loads, value)
        else:
            tools[name] = value
    installed = job.version
    job.version = lambda name: tools.get(name) or installed(name)  # type: ignore[attr-defined]
    read, store = manifest.load(Path(sys.argv[1])), Store()
    print(json.dumps({name: _built(read, variant, store) for name, variant in read.variants.items()}))


def _built(read: Any, variant: Any, store: Store) -> dict[str, Any]:
    build = pipeline.Pins(store).prepare(read, variant, None, Fetching(read.path.parent))
    artifact = pipeline.build(build)
    verdicts = {verdict.check: verdict for verdict in conformance.examine(conformance.Examination(build, artifact))}
    return {
        "stages": {stage.name: stage.key for stage in artifact.chain},
        "digest": artifact.digest,
        # One that was skipped leaves nothing to record: it is neither reused nor made.
        "reused": {check: verdict.reused for check, verdict in verdicts.items() if verdict.outcome != "skipped"},
        "said": {check: [verdict.outcome, verdict.sentence] for check, verdict in verdicts.items()},
    }


if __name__ == "__main__":
    main()
