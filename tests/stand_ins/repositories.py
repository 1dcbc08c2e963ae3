"""What the hub repositories of our manifests hold, in small: true signatures, few and narrow layers, seeded weights.

What shows in a signature is as in the original: widths of outputs, the vocabularies of language models, their layers
(each has inputs of its own), key-value heads, image sizes. Everything else is as small as the code path allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import stand_ins
from modelkit import manifest
from servers import Hub
from stand_ins import pickles, t5
from stand_ins.clip import clip
from stand_ins.deberta_v2 import deberta_v2
from stand_ins.llama import LLAMA_32_1B, QWEN25_15B, SMOLLM2_135M, llama, qwen2
from stand_ins.new import new
from stand_ins.xlm_roberta import xlm_roberta

THIN = {"hidden_size": 128, "intermediate_size": 192, "torch_dtype": "bfloat16", "embedding_range": 3.0}
T5 = {**t5.CODET5_SMALL, "d_model": 128, "d_ff": 192, "embedding_range": 30.0}
WORDS = 3000
# Each layer of seeded weights adds rounding errors, and none has learned to forgive them.
ENCODER = {"vocab_size": WORDS, "num_hidden_layers": 1, "intermediate_size": 256, "num_attention_heads": 12}
CORPORA = Path(__file__).parents[2] / "conformance" / "corpora"


def _read_in(folder: Path, task: str) -> None:
    """Give the tokenizer words of the task's corpus: letter by letter its texts would be far longer than real ones.

    The special tokens keep their ids, and the post-processor stays as it is.
    """
    path = folder / "tokenizer.json"
    own = Tokenizer.from_file(str(path))
    added = own.get_added_tokens_decoder()
    special = [added[number].content for number in sorted(added)] or list(stand_ins.SPECIAL)
    texts = [json.loads(line)["text"] for line in (CORPORA / f"{task}.jsonl").read_text("utf-8").split("\n") if line]
    taught = Tokenizer(models.BPE())
    taught.pre_tokenizer, taught.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    taught.train_from_iterator(texts, trainer)
    taught.post_processor = own.post_processor
    taught.save(str(path))


WRITERS: Mapping[str, Callable[[Path], Path]] = {
    "Salesforce/codet5-small": partial(t5.as_published, **T5),
    "Salesforce/codet5-base": partial(
        t5.as_published, **{**T5, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12}
    ),
    "openai/clip-vit-base-patch32": partial(
        clip, projection_dim=512, text_config={"max_position_embeddings": 77}, vision_config={"image_size": 224}
    ),
    "Alibaba-NLP/gte-multilingual-base": partial(new, hidden_size=768, max_position_embeddings=8192, **ENCODER),
    "intfloat/multilingual-e5-small": partial(stand_ins.bert, hidden_size=384, max_position_embeddings=512, **ENCODER),
    "BAAI/bge-m3": partial(
        xlm_roberta, hidden_size=1024, max_position_embeddings=8194, **{**ENCODER, "num_attention_heads": 16}
    ),
    "MoritzLaurer/mDeBERTa-v3-base-mnli-xnli": partial(
        deberta_v2, hidden_size=384, max_position_embeddings=512, position_buckets=256, **ENCODER
    ),
    "Qwen/Qwen2.5-1.5B-Instruct": partial(qwen2, **{**QWEN25_15B, **THIN}),
    "meta-llama/Llama-3.2-1B-Instruct": partial(llama, **{**LLAMA_32_1B, **THIN}),
    "HuggingFaceTB/SmolLM2-135M-Instruct": partial(llama, **{**SMOLLM2_135M, "head_dim": 64, **THIN}),
}


def _coarse(folder: Path) -> None:
    """Put the weights of matrices on five levels, which four bits hold, whatever neighbours add up to.

    Random weights have nothing to forgive rounding errors with: in a model that pools its first position they decide
    who is near to whom. What 4 bits cost a trained model is measured on real and on learned weights.
    """
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, values in tensors.items():
        if values.ndim == 2 and len(values) > 1:
            step = values.std().clip(1e-6)
            tensors[name] = (np.rint(values / step).clip(-2, 2) * step).astype(values.dtype)
    save_file(tensors, path)


def hub(path: Path, folder: Path) -> Hub:
    """The repository that the manifest at `path` names, at the revision it names; its files are written to `folder`."""
    read = manifest.load(path)
    source = read.source
    repository, revision = source.first.options.hub, source.first.options.revision
    WRITERS[repository](folder)
    if read.task.kind != "image-feature-extraction" and (folder / "tokenizer.json").exists():
        _read_in(folder, read.task.kind)
    if getattr(getattr(read.task.options, "text", None), "pooling", None) == "cls":
        _coarse(folder)
    if "pytorch_model.bin" in source.files and (folder / "model.safetensors").exists():
        pickles.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    for name in source.files:
        if not any(folder.glob(name)):
            # A repository of its kind has it; nothing in the stand-in needs it to say anything.
            (folder / name).write_text("{}")
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    return Hub(files, repository, revision if revision and len(revision) == 40 else "0" * 39 + "1")
