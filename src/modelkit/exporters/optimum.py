"""optimum's exporter in the reference framework, in an environment of its own: the second road to a graph."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit import kinds
from modelkit.errors import StageError
from modelkit.json_objects import read_object
from modelkit.vocabulary import WHOLE, Manifest

VERSION = 1
TOOLS = ("onnx", "onnx-ir", "numpy", "ml_dtypes", "protobuf")
"""What writes the files; what traces the graph is in `extra`."""
CUTS: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "image-feature-extraction": {
        WHOLE: {"text_model": ("text_embeds",), "vision_model": ("image_embeds",)},
    },
}
"""Task -> what optimum exports in one piece -> our parts and their outputs."""


@dataclass(frozen=True)
class Options:
    """No choices: optimum's own defaults for the model and the task."""


def extra() -> dict[str, Any]:
    """What a key has to hold besides: the environment's lock, and the scripts that run in it."""
    from modelkit import reference  # noqa: PLC0415
    from modelkit.digests import digest_file  # noqa: PLC0415

    folder = Path(str(reference.__file__)).parent
    paths = sorted([*folder.glob("*.py"), folder / "requirements.txt"])
    return {"reference": {path.name: digest_file(path).sha256 for path in paths}}


def export(manifest: Manifest, source: Path, into: Path, options: Options) -> None:  # noqa: ARG001
    """Write the float32 model of the files in `source` to `into`, with the parts and names that `direct` gives it.

    An encoder-decoder model comes in three parts, as with `export: {direct: {split: true}}`. Raises `StageError` when
    the environment cannot be made, when optimum cannot export the model, or when the signature declares other parts.
    """
    with tempfile.TemporaryDirectory(dir=into, prefix=".optimum-") as scratch:
        traced = _traced(manifest, source, Path(scratch))
        cuts = {part: (origin, outputs)
                for origin in traced for part, outputs in _cuts(manifest.task.kind, origin).items()}  # fmt: skip
        _refuse_other_parts(manifest, set(cuts))
        for part, (origin, outputs) in cuts.items():
            _adopt(manifest, part, Path(scratch, origin), outputs, into)


def _traced(manifest: Manifest, source: Path, scratch: Path) -> list[str]:
    """optimum's own parts, each in a folder of `scratch`."""
    from modelkit.reference import process  # noqa: PLC0415

    request = {"source": str(source.absolute()), "into": str(scratch.absolute()), "task": manifest.task.kind}
    try:
        parts: list[str] = process.answer("export", request)["parts"]
    except StageError as error:
        if error.message.startswith(("transformers ", "optimum exports ")):
            error.hint = f"{_other_exporter(manifest, source)}; {error.hint}"
        raise
    return parts


def _other_exporter(manifest: Manifest, source: Path) -> str:
    """Which exporter could take what optimum does not."""
    model_type = str(read_object(source / "config.json").get("model_type"))
    kind, task = model_type.replace("_", "-"), manifest.task.kind
    if kind in kinds.names("architectures"):
        parts = kinds.load("architectures", kind).PARTS
        if getattr(kinds.load("tasks", task), "GRAPH", task) in parts:
            return f"`export: direct` builds {model_type} for this task"
    return "use `export: prebuilt` with an ONNX file"


def _cuts(task: str, origin: str) -> dict[str, tuple[str, ...]]:
    """Our parts in a graph of optimum's, each with the outputs it keeps (none: all of them)."""
    return CUTS.get(task, {}).get(origin, {origin: ()})


def _refuse_other_parts(manifest: Manifest, parts: set[str]) -> None:
    declared = set(manifest.signatures)
    if declared and declared != parts:
        raise StageError(
            f"optimum gives the parts {', '.join(sorted(parts))}, the signature declares {', '.join(sorted(declared))}",
            hint="declare the signature of each part, or use `export: direct`",
        )


def _adopt(manifest: Manifest, part: str, traced: Path, outputs: tuple[str, ...], into: Path) -> None:
    from modelkit import graphs  # noqa: PLC0415
    from modelkit.graphs import files, foreign  # noqa: PLC0415

    folder = graphs.checkpoint(into, part)
    folder.mkdir(exist_ok=True)
    model, tensors = foreign.read(traced), files.TensorFile(folder)
    if outputs:
        foreign.keep(model, outputs)
    foreign.rename_axes(model)
    if manifest.task.kind == "feature-extraction":
        foreign.add_vectors(model, tensors, getattr(manifest.task.options, "text", None))
    if signature := manifest.signatures.get(part):
        foreign.declare(model, signature)
    files.save(model, tensors)
