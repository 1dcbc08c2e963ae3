"""safetensors -> ONNX without torch: reads config.json, finds the architecture, writes the graph tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit import kinds
from modelkit.errors import ManifestError, StageError
from modelkit.vocabulary import Manifest

VERSION = 1
TOOLS = ("onnx", "onnx-ir", "numpy", "safetensors", "ml_dtypes", "protobuf")


@dataclass(frozen=True)
class Options:
    """No choices."""


def export(manifest: Manifest, source: Path, into: Path, options: Options) -> None:  # noqa: ARG001
    """Write the float32 model of the files in `source` to `into`, with pooling and normalisation in the graph.

    Raises `StageError` when config.json, an architecture or a tensor is missing or does not fit, or when the manifest
    allows longer texts than the model has positions for.
    """
    from modelkit.graphs import files  # noqa: PLC0415
    from modelkit.graphs.blocks import Blocks  # noqa: PLC0415
    from modelkit.graphs.tape import Tape, model_of, typed  # noqa: PLC0415
    from modelkit.weights import Weights  # noqa: PLC0415

    config = read_config(source)
    architecture = _architecture(config)
    options_of_model = _options(architecture.Options, config)
    text = manifest.task.options.text
    _refuse_long_texts(text.max_tokens, options_of_model)
    tensors = files.TensorFile(into)
    weights = Weights(source, architecture.PREFIXES)
    blocks = Blocks(Tape(tensors), weights)
    inputs = {name: typed(name, "int64", ["batch", "sequence"]) for name in architecture.INPUTS}
    hidden = architecture.build(blocks, inputs, options_of_model)
    weights.refuse_unread(architecture.IDLE)
    vector = blocks.pool(hidden, inputs["attention_mask"], text.pooling, text.normalize)
    outputs = [
        _output(hidden, "last_hidden_state", ["batch", "sequence", options_of_model.hidden_size]),
        _output(vector, "sentence_embedding", ["batch", options_of_model.hidden_size]),
    ]
    files.save(model_of(blocks.tape, config["model_type"], list(inputs.values()), outputs), tensors)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a mapping. Raises `StageError` when it is missing or no JSON object."""
    path = folder / "config.json"
    if not path.exists():
        raise StageError("no config.json in the source", hint="add it to `source.files`")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"config.json is no JSON ({error})", hint="fetch the source again") from error
    if not isinstance(config, dict):
        raise StageError("config.json holds no JSON object", hint="fetch the source again")
    return config


def _architecture(config: dict[str, Any]) -> Any:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise StageError("config.json has no model_type", hint="use `export: prebuilt` with an ONNX file")
    try:
        return kinds.load("architectures", model_type.replace("_", "-"))
    except ManifestError as error:
        raise StageError(
            f"config.json: {error.message}", hint="use `export: prebuilt`, or add the architecture (docs/adding.md)"
        ) from error


def _options(options: type, config: dict[str, Any]) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config  # noqa: PLC0415

    # Every config.json carries keys that do not change the graph; those are ignored.
    checked = with_config(ConfigDict(strict=True, extra="ignore"))(options)
    try:
        return TypeAdapter(checked).validate_json(json.dumps(config))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise StageError(f"config.json: {found}", hint="this architecture does not build such a model") from error


def _refuse_long_texts(max_tokens: int, options_of_model: Any) -> None:
    positions = getattr(options_of_model, "max_position_embeddings", max_tokens)
    if max_tokens > positions:
        raise StageError(
            f"text.max_tokens is {max_tokens}, the model has {positions} positions", hint="lower text.max_tokens"
        )


def _output(value: Any, name: str, shape: list[int | str]) -> Any:
    import onnx_ir as ir  # noqa: PLC0415

    value.name, value.dtype, value.shape = name, ir.DataType.FLOAT, ir.Shape(shape)
    return value
