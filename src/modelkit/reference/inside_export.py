"""Runs inside the reference environment: a checkpoint through optimum's exporter, every part in a folder of its own."""

import gc
import sys
from pathlib import Path
from typing import Any

TASKS = {
    "feature-extraction": ("AutoModel", "feature-extraction"),
    "image-feature-extraction": ("AutoModel", "feature-extraction"),
    "zero-shot-classification": ("AutoModelForSequenceClassification", "text-classification"),
    "text-generation": ("AutoModelForCausalLM", "text-generation-with-past"),
    "text2text-generation": ("AutoModelForSeq2SeqLM", "text2text-generation-with-past"),
}
"""modelkit's task -> transformers' class, optimum's task."""
MERGED = "decoder_model_merged"
"""What optimum makes of two decoders for its own runtime."""
INLINE_BELOW = 1024


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """`source`, `task` and the empty folder `into` -> the parts that lie there."""
    from optimum.exporters.onnx import onnx_export_from_model

    class_name, task = TASKS[request["task"]]
    model = original(request["source"], class_name, task)
    raw = Path(request["into"], "raw")
    onnx_export_from_model(model, raw, task=task, do_validation=False, device="cpu")
    del model
    gc.collect()
    paths = sorted(path for path in raw.glob("*.onnx") if path.stem != MERGED)
    for path in paths:
        separate(path, Path(request["into"], path.stem))
    return {"parts": [path.stem for path in paths]}


def original(source: str, class_name: str, task: str) -> Any:
    """The checkpoint as its original implementation, in float32, with every weight found."""
    import torch
    import transformers

    config, _ = transformers.PretrainedConfig.get_config_dict(source)
    refuse_unknown(config.get("model_type"), task)
    loader = getattr(transformers, class_name)
    options = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    model, told = loader.from_pretrained(source, output_loading_info=True, **options)
    # Vectors are taken before the pooler, and checkpoints of embedding models are often saved without one.
    missing = sorted(name for name in told["missing_keys"] if not ("pooler." in name and class_name == "AutoModel"))
    if missing:
        sys.exit(f"the source has no tensor {missing[0]} ({len(missing)} missing)")
    return model.eval()


def refuse_unknown(model_type: Any, task: str) -> None:
    """Ends with one line when transformers or optimum does not know the model."""
    import optimum.exporters.onnx.model_configs  # noqa: F401  fills the table that is read below
    import transformers
    from optimum.exporters.tasks import TasksManager
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if model_type not in CONFIG_MAPPING_NAMES:
        sys.exit(f"transformers {transformers.__version__} has no model_type {model_type}")
    try:
        known = TasksManager.get_supported_tasks_for_model_type(model_type, "onnx", library_name="transformers")
    except KeyError:
        sys.exit(f"optimum exports no model_type {model_type}")
    if task not in known:
        sys.exit(f"optimum exports {model_type} for {', '.join(sorted(known))}, not for {task}")


def separate(path: Path, into: Path) -> None:
    """The same graph with its tensors beside it, so that a reader need not hold them all."""
    import onnx

    into.mkdir()
    onnx.save(
        onnx.load(path),
        into / "model.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="model.onnx.data",
        size_threshold=INLINE_BELOW,
    )
    path.unlink()
