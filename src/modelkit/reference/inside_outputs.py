"""Runs inside the reference environment: what the original implementation makes of texts, one text at a time."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Rows = list[list[float]]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """`source`, `task`, `options` and `texts` -> one row of numbers for each text, and what computed them."""
    import torch

    with torch.inference_mode():
        outputs = TASKS[request["task"]](request)
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    return {"outputs": outputs, "versions": versions}


def vectors(request: dict[str, Any]) -> Rows:
    """feature-extraction: pooled and normalised as sentence-transformers defines both."""
    import torch

    wanted, model, read = request["options"]["text"], original(request, "AutoModel"), tokenizer(request)
    # Prefixes belong to the text; the first one declared is the one that outputs are compared with.
    prefix = next(iter((wanted.get("prefixes") or {}).values()), "")
    rows = []
    for text in request["texts"]:
        tokens = read(prefix + text, truncation=True, max_length=wanted["max_tokens"], return_tensors="pt")
        hidden = model(**fed(model, tokens)).last_hidden_state
        # https://github.com/UKPLab/sentence-transformers: models/Pooling, models/Normalize
        share = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * share).sum(1) / share.sum(1).clamp(min=1e-9)
        pooled = hidden[:, 0] if wanted["pooling"] == "cls" else mean
        rows.append(torch.nn.functional.normalize(pooled, dim=1)[0] if wanted["normalize"] else pooled[0])
    return plain(rows)


def pair_logits(request: dict[str, Any]) -> Rows:
    """zero-shot-classification: the logits of `premise <newline> hypothesis`, the premise cut when it is too long."""
    model, read = original(request, "AutoModelForSequenceClassification"), tokenizer(request)
    longest, rows = request["options"]["text"]["max_tokens"], []
    for text in request["texts"]:
        premise, _, hypothesis = text.rpartition("\n")
        tokens = read(premise, hypothesis, truncation="only_first", max_length=longest, return_tensors="pt")
        rows.append(model(**fed(model, tokens)).logits[0])
    return plain(rows)


def next_token_logits(request: dict[str, Any]) -> Rows:
    """text-generation: the logits of the token after each text."""
    model, read = original(request, "AutoModelForCausalLM"), tokenizer(request)
    return plain([model(**fed(model, read(text, return_tensors="pt"))).logits[0, -1] for text in request["texts"]])


def first_token_logits(request: dict[str, Any]) -> Rows:
    """text2text-generation: the logits of the first token that the decoder gives for each text."""
    import torch

    model, read = original(request, "AutoModelForSeq2SeqLM"), tokenizer(request)
    start = torch.tensor([[model.config.decoder_start_token_id]])
    cut: dict[str, Any] = {}
    if longest := (request["options"].get("text") or {}).get("max_tokens"):
        cut = {"truncation": True, "max_length": longest}
    rows = []
    for text in request["texts"]:
        tokens = fed(model, read(text, return_tensors="pt", **cut))
        rows.append(model(**tokens, decoder_input_ids=start).logits[0, -1])
    return plain(rows)


def image_or_text_vectors(request: dict[str, Any]) -> Rows:
    """image-feature-extraction: a data URL is an image, anything else a text; unit vectors of the shared space."""
    import torch

    model, read = original(request, "AutoModel"), tokenizer(request)
    longest, rows = request["options"]["text"]["max_tokens"], []
    for text in request["texts"]:
        if text.startswith("data:image/"):
            vector = model.get_image_features(pixel_values=pixels(request, text))
        else:
            tokens = read(text, truncation=True, max_length=longest, return_tensors="pt")
            vector = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        rows.append(torch.nn.functional.normalize(vector, dim=-1)[0])
    return plain(rows)


TASKS: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "feature-extraction": vectors,
    "zero-shot-classification": pair_logits,
    "text-generation": next_token_logits,
    "text2text-generation": first_token_logits,
    "image-feature-extraction": image_or_text_vectors,
}


def original(request: dict[str, Any], class_name: str) -> Any:
    """The checkpoint in float32. Ends with one line when a weight is missing."""
    import torch
    import transformers

    options = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    loader = getattr(transformers, class_name)
    model, told = loader.from_pretrained(request["source"], output_loading_info=True, **options)
    missing = sorted(name for name in told["missing_keys"] if not ("pooler." in name and class_name == "AutoModel"))
    if missing:
        sys.exit(f"the source has no tensor {missing[0]} ({len(missing)} missing)")
    return model.eval()


def tokenizer(request: dict[str, Any]) -> Any:
    """The original's own when the source configures one, else tokenizer.json as it is."""
    import transformers

    folder = Path(request["source"])
    if (folder / "tokenizer_config.json").exists():
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    made = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    # One text at a time needs no padding, and a limit of its own could be shorter than the one asked for.
    made.backend_tokenizer.no_padding()
    made.backend_tokenizer.no_truncation()
    return made


def pixels(request: dict[str, Any], url: str) -> Any:
    """The image of a data URL as the original reads it (the camera's orientation counts), by its slow processor."""
    from transformers import CLIPImageProcessor
    from transformers.image_utils import load_image

    processor = CLIPImageProcessor.from_pretrained(request["source"], local_files_only=True)
    # Told, because it guesses wrong where an image is one or three pixels high.
    return processor(load_image(url), input_data_format="channels_last", return_tensors="pt")["pixel_values"]


def fed(model: Any, tokens: Any) -> dict[str, Any]:
    """What the model takes of what the tokenizer gives."""
    import inspect

    taken = inspect.signature(model.forward).parameters
    return {name: value for name, value in tokens.items() if name in taken}


def plain(rows: list[Any]) -> Rows:
    """Tensors as lists of numbers."""
    return [row.to("cpu").tolist() for row in rows]
