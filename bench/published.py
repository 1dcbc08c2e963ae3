"""The published models with seeded weights in their true sizes; `python -m bench.published NAME FOLDER` makes one.

A process of its own, so that the measuring one stays small.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from bench.processes import HERE, WORK, python

MANIFESTS = HERE / "manifests"
MULTILINGUAL = {"vocab_size": 250002, "num_hidden_layers": 12, "num_attention_heads": 12}


def source(name: str) -> Path:
    """The model of `manifests/<name>.yaml` as a checkpoint on disk: safetensors, and a tokenizer of few words."""
    folder = WORK / "published" / name
    python("-m", "bench.published", name, folder)
    return folder


def main(name: str, folder: Path) -> None:
    """In the process of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    make, config = _stand_ins()[name]
    make(folder, **config)


def _stand_ins() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Manifest -> what makes the architecture, and what the published config.json says."""
    sys.path.insert(0, str(HERE / "tests"))

    import stand_ins  # noqa: PLC0415
    from stand_ins import clip, deberta_v2, llama, t5, xlm_roberta  # noqa: PLC0415

    e5 = {"vocab_size": 250037, "hidden_size": 384, "intermediate_size": 1536, "max_position_embeddings": 512}
    bge = {"hidden_size": 1024, "intermediate_size": 4096, "max_position_embeddings": 8194}
    mdeberta = {"vocab_size": 251000, "hidden_size": 768, "intermediate_size": 3072, "max_position_embeddings": 512}
    return {
        "multilingual-e5-small": (stand_ins.bert, {**MULTILINGUAL, **e5}),
        "bge-m3": (
            xlm_roberta.xlm_roberta, {**MULTILINGUAL, **bge, "num_hidden_layers": 24, "num_attention_heads": 16},
        ),
        "mdeberta-v3-base-mnli-xnli": (
            deberta_v2.deberta_v2, {**MULTILINGUAL, **mdeberta, "position_buckets": 256},
        ),
        "clip-vit-base-patch32": (clip.clip, clip.BASE_PATCH32),
        "codet5-small": (t5.t5, t5.CODET5_SMALL),
        "smollm2-135m-instruct": (llama.llama, llama.SMOLLM2_135M),
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
