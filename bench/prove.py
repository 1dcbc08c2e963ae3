"""Do the checks bite, and only what is wrong? Seeded faults in artifacts of each task, and clean artifacts of all.

The weights of MiniLM and of the models in tests/learned are real or learned; those of the other manifests are seeded,
in small, and served by a hub on loopback.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.processes import HERE, WORK, python, run
from bench.report import against, table, tell

PROVED = ("minilm-l6/int8", "minilm-l6/int4", "t5-summaries/int8", "t5-summaries/int4", "llama-summaries/int8",
          "llama-summaries/int4", "deberta-entailment/int8", "deberta-entailment/int4", "clip-vit-base-patch32/int8",
          "clip-vit-base-patch32/int4")  # fmt: skip
ENOUGH, FAULTS, BUILDS = 0.95, 24, 50
MORE = "variants:\n  {0}: {{ channel: dev, scheme: {0} }}\n"
"""What makes a manifest describe one variant more."""
EXPLAINED = {
    ("clip-vit-base-patch32", "attention-mask-dropped"):
        "no fault: its text encoder is causal and read at the end token, so that padding behind it reaches nothing",
}  # fmt: skip
"""Model and fault -> why nothing can notice."""
ROOM = WORK / "prove"


def main() -> None:
    """Print the section."""
    sys.path.insert(0, str(HERE / "tests"))
    from servers import Hubs  # noqa: PLC0415
    from stand_ins import repositories  # noqa: PLC0415

    shutil.rmtree(ROOM, ignore_errors=True)
    project = _project()
    published = [path for path in sorted((HERE / "manifests").glob("*.yaml")) if path.stem != "minilm-l6"]
    with tempfile.TemporaryDirectory() as home:
        served = [repositories.hub(path, ROOM / "repositories" / path.stem) for path in published]
        with Hubs(served).running() as hubs:
            around = {"HF_ENDPOINT": hubs.url, "HF_HOME": home}
            recording = Path(sys.executable).with_name("modelkit"), "golden"
            run([*recording, project / "manifests" / "clip-vit-base-patch32.yaml"], **around)
            proved = {name: _told("proved", project, name, **around) for name in PROVED}
            names = sorted(path.stem for path in (project / "manifests").glob("*.yaml"))
            clean = {key: said for name in names for key, said in _told("clean", project, name, **around).items()}
    _print(proved, clean)


def _project() -> Path:
    """All manifests of this repository in one folder, each with float32 and float16 beside its own variants."""
    project = ROOM / "project"
    shutil.copytree(HERE / "conformance", project / "conformance")
    # A lock is of a manifest as it was.
    shutil.copytree(HERE / "manifests", project / "manifests", ignore=shutil.ignore_patterns("*.lock"))
    learned = HERE / "tests" / "learned"
    shutil.copytree(learned / "models", project / "manifests" / "models")
    for path in learned.glob("*.yaml"):
        shutil.copyfile(path, project / "manifests" / path.name)
    for path in (project / "manifests").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        for scheme in ("fp16", "fp32"):
            if f"  {scheme}:\n" not in text:
                text = text.replace("variants:\n", MORE.format(scheme), 1)
        path.write_text(text, encoding="utf-8")
    return project


def _told(what: str, project: Path, *names: str, **environment: str) -> Any:
    """What a process of its own finds, and its last line tells as JSON."""
    tell(f"  {what} {' '.join(names)}")
    return json.loads(python("-m", "bench.prove", what, project, *names, **environment).output.splitlines()[-1])


def _print(proved: dict[str, Any], clean: dict[str, dict[str, str]]) -> None:
    survivors = [(name, fault, told, EXPLAINED.get((name.split("/")[0], fault), ""))
                 for name, found in proved.items() for fault, told in found["survivors"]]  # fmt: skip
    alarms = [(name, check, said) for name, found in clean.items() for check, said in found.items()]
    print("""## Proof

`modelkit prove`: every fault that has a place in a conforming artifact is put into a copy of it, and a check of the
profile `quick` has to notice. Which check asked first noticed how many; the checks are asked from the quickest to the
slowest. CLIP has seeded weights in small, with recorded outputs of the original implementation.
""")
    print(table(
        ("artifact", "faults", "noticed", "share", "seconds", "noticed by"),
        [(name, str(found["faults"]), str(found["noticed"]), f"{found['noticed'] / found['faults']:.3f}",
          f"{found['seconds']:.0f}", ", ".join(f"{check} {count}" for check, count in found["by"]))
         for name, found in proved.items()],
    ))  # fmt: skip
    heads = ("artifact", "survivor", "what was damaged", "why")
    print(table(heads, survivors) if survivors else "No fault survived.\n")
    print(f"""{len(clean)} clean artifacts, built from all manifests of this repository and of tests/learned (of those
whose weights no machine reaches without the hub, stand-ins in small), each in float32 and float16 as well: a check that
fails or cannot run is a false alarm.
""")
    print(table(("artifact", "check", "what it said"), alarms) if alarms else "No check raised a false alarm.\n")
    print(against([
        *((f"{name}: share of faults noticed", found["noticed"] / found["faults"], "{:.3f}", ">=", ENOUGH)
          for name, found in proved.items()),
        ("fewest faults in an artifact", min(found["faults"] for found in proved.values()), "{:.0f}", ">=", FAULTS),
        ("clean artifacts", len(clean), "{:.0f}", ">=", BUILDS),
        ("false alarms", len(alarms), "{:.0f}", "<=", 0),
    ]))  # fmt: skip


def proved(project: Path, name: str) -> None:
    """Print what became of the faults in one artifact, as JSON. A process of its own."""
    from modelkit import conformance, proving  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415

    model, variant = name.split("/")
    build, artifact = _built(project / "manifests" / f"{model}.yaml", variant)
    start = perf_counter()
    with Store().workspace("proving") as place:
        found = proving.prove(conformance.Examination(build, artifact), place, lambda *_: None)
    by = Counter(next(iter(one.noticed)) for one in found.tried if one.noticed)
    print(json.dumps({
        "faults": len(found.tried),
        "noticed": len(found.tried) - len(found.survivors),
        "seconds": perf_counter() - start,
        "by": by.most_common(),
        "survivors": [(one.fault, one.told) for one in found.survivors],
    }))  # fmt: skip


def clean(project: Path, name: str) -> None:
    """Build every variant of one manifest, and print what does not pass, as JSON. A process of its own."""
    from modelkit import conformance, manifest  # noqa: PLC0415
    from modelkit.errors import ModelkitError  # noqa: PLC0415

    found: dict[str, dict[str, str]] = {}
    path = project / "manifests" / f"{name}.yaml"
    for variant in manifest.load(path).variants:
        examination = conformance.Examination(*_built(path, variant))
        said = found.setdefault(f"{name}/{variant}", {})
        for check in conformance.plan(examination.build.job.manifest):
            try:
                verdict = examination.run(check)
            except ModelkitError as error:
                said[check] = f"could not run: {error}"
                continue
            if verdict.outcome not in ("passed", "skipped"):
                said[check] = verdict.sentence
    print(json.dumps(found))


def _built(path: Path, variant: str) -> Any:
    from modelkit import manifest, pipeline  # noqa: PLC0415
    from modelkit.store import Store  # noqa: PLC0415
    from modelkit.vocabulary import Fetching  # noqa: PLC0415

    read = manifest.load(path)
    build = pipeline.Pins(Store()).prepare(read, read.variants[variant], None, Fetching(path.parent))
    return build, pipeline.build(build, None)


if __name__ == "__main__":
    if sys.argv[1:]:
        os.chdir(sys.argv[2])
        {"proved": proved, "clean": clean}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
    else:
        main()
