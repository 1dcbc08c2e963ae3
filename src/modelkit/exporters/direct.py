"""A checkpoint -> ONNX without torch: reads config.json, finds the architecture, writes the graph tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit import kinds
from modelkit.errors import StageError
from modelkit.json_objects import read_object
from modelkit.vocabulary import Manifest

VERSION = 2
TOOLS = ("onnx", "onnx-ir", "numpy", "safetensors", "ml_dtypes", "protobuf")


@dataclass(frozen=True)
class Options:
    """`split`: an encoder-decoder model as its runtimes knew it before: encoder and decoder in files of their own."""

    split: bool = False


def export(manifest: Manifest, source: Path, into: Path, options: Options) -> None:
    """Write the float32 model of the files in `source` to `into`, each part of it by itself.

    Raises `StageError` when config.json, an architecture or a tensor is missing or does not fit, when the architecture
    does not serve the task, or when the manifest allows longer texts than the model has positions for.
    """
    from modelkit import graphs  # noqa: PLC0415
    from modelkit.graphs import files  # noqa: PLC0415
    from modelkit.graphs.blocks import Blocks  # noqa: PLC0415
    from modelkit.graphs.tape import Tape, model_of  # noqa: PLC0415
    from modelkit.weights import Weights  # noqa: PLC0415

    config = read_object(source / "config.json", needed=True)
    architecture = _architecture(config)
    drawings = _drawings(architecture, graph_task(manifest), options, config["model_type"])
    settings = _options(architecture.Options, config)
    _refuse_long_texts(manifest.task.options, settings)
    weights = Weights(source, architecture.PREFIXES)
    for part, draw in drawings.items():
        folder = graphs.checkpoint(into, part)
        folder.mkdir(exist_ok=True)
        tensors = files.TensorFile(folder)
        blocks = Blocks(Tape(tensors), weights)
        drawn = draw(blocks, settings, manifest.task.options)
        files.save(model_of(blocks.tape, config["model_type"], drawn), tensors)
    weights.refuse_unread(architecture.IDLE)


def graph_task(manifest: Manifest) -> str:
    """The task whose graphs the manifest's task runs: its own, unless the task's module names another as `GRAPH`."""
    return str(getattr(kinds.load("tasks", manifest.task.kind), "GRAPH", manifest.task.kind))


def _drawings(architecture: Any, task: str, options: Options, model_type: str) -> Any:
    """What records each part of the model for `task`."""
    layouts = getattr(architecture, "SPLIT", {}) if options.split else architecture.PARTS
    if task not in layouts:
        what = "split, " if options.split else ""
        known = f"for {', '.join(layouts)}" if layouts else "in one piece only"
        raise StageError(
            f"{model_type} is not built {what}for the task {task}, but {known}",
            hint="correct `task` or `export` in the manifest",
        )
    return layouts[task]


def _architecture(config: dict[str, Any]) -> Any:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise StageError("config.json has no model_type", hint="use `export: prebuilt` with an ONNX file")
    # A near name would mislead: configs are written by machines, and bart is no misspelt bert.
    if (kind := model_type.replace("_", "-")) not in (known := kinds.names("architectures")):
        raise StageError(
            f"config.json has the model_type '{model_type}', `export: direct` knows only {', '.join(known)}",
            hint="optimum may know it (`export: optimum`); else use `export: prebuilt` with an ONNX file, "
            "or add the architecture (docs/adding.md)",
        )
    return kinds.load("architectures", kind)


def _options(options: type, config: dict[str, Any]) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config  # noqa: PLC0415

    # Every config.json carries keys that do not change the graph; those are ignored, in nested parts too.
    checked = with_config(ConfigDict(strict=True, extra="ignore"))(options)
    try:
        return TypeAdapter(checked).validate_json(json.dumps(config))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise StageError(f"config.json: {found}", hint="this architecture does not build such a model") from error


def _refuse_long_texts(task: Any, settings: Any) -> None:
    max_tokens = getattr(getattr(task, "text", None), "max_tokens", 0)
    # Not every position need be one a text can have; an architecture that keeps some back says how many are left.
    positions = getattr(settings, "positions", getattr(settings, "max_position_embeddings", max_tokens))
    if max_tokens > positions:
        raise StageError(
            f"text.max_tokens is {max_tokens}, the model has {positions} positions", hint="lower text.max_tokens"
        )
