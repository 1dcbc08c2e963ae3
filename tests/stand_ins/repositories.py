"""What the hub repositories of our manifests hold, in small: true signatures, few and narrow layers, seeded weights.

What shows in a signature is as in the original: widths of outputs, the vocabularies of language models, their layers
(each has inputs of its own), key-value heads, image sizes. Everything else is as small as the code path allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import stand_ins
from modelkit import manifest
from servers import Hub
from stand_ins.clip import clip
from stand_ins.deberta_v2 import deberta_v2
from stand_ins.llama import LLAMA_32_1B, QWEN25_15B, SMOLLM2_135M, llama, qwen2
from stand_ins.new import new
from stand_ins.t5 import CODET5_SMALL, t5
from stand_ins.xlm_roberta import unigram, xlm_roberta

THIN = {"hidden_size": 128, "intermediate_size": 192, "torch_dtype": "bfloat16", "embedding_range": 1.0}
T5 = {**CODET5_SMALL, "d_model": 128, "d_ff": 192, "embedding_range": 30.0}
ENCODER = {"intermediate_size": 256, "num_attention_heads": 12}


def _e5(folder: Path) -> Path:
    """A BERT with the tokenizer of XLM-RoBERTa, as e5 is."""
    stand_ins.bert(folder, hidden_size=384, max_position_embeddings=512, **ENCODER)
    unigram().save(str(folder / "tokenizer.json"))
    return folder


WRITERS: Mapping[str, Callable[[Path], Path]] = {
    "Salesforce/codet5-small": partial(t5, **T5),
    "Salesforce/codet5-base": partial(
        t5, **{**T5, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12}
    ),
    "openai/clip-vit-base-patch32": partial(
        clip, projection_dim=512, text_config={"max_position_embeddings": 77}, vision_config={"image_size": 224}
    ),
    "Alibaba-NLP/gte-multilingual-base": partial(new, hidden_size=768, max_position_embeddings=8192, **ENCODER),
    "intfloat/multilingual-e5-small": _e5,
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


def hub(path: Path, folder: Path) -> Hub:
    """The repository that the manifest at `path` names, at the revision it names; its files are written to `folder`."""
    source = manifest.load(path).source
    repository, revision = source.first.options.hub, source.first.options.revision
    WRITERS[repository](folder)
    for name in source.files:
        if not any(folder.glob(name)):
            # A repository of its kind has it; nothing in the stand-in needs it to say anything.
            (folder / name).write_text("{}")
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    return Hub(files, repository, revision if revision and len(revision) == 40 else "0" * 39 + "1")
