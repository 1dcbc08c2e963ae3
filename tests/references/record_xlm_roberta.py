"""Record what transformers' own XLMRobertaModel computes of the stand-in.

`python tests/references/record_xlm_roberta.py` needs torch and transformers; the tests only read `xlm_roberta.json`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

sys.path.append(str(Path(__file__).parents[1]))

from stand_ins.xlm_roberta import XLM_ROBERTA, padded_feed, xlm_roberta

CASES: dict[str, dict[str, Any]] = {
    "as bge-m3": {},
    "another activation": {"hidden_act": "gelu_new", "num_hidden_layers": 1},
    "another padding": {"pad_token_id": 0, "hidden_act": "relu"},
    "two token types": {"type_vocab_size": 2, "hidden_size": 48, "num_attention_heads": 6},
}


def recorded(case: str, seed: int) -> dict[str, Any]:
    """Inputs and a few of the outputs."""
    config = {**XLM_ROBERTA, **CASES[case]}
    feed = padded_feed(config, batch=3, sequence=9, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        xlm_roberta(Path(folder), seed, **CASES[case])
        model = transformers.XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False).eval()
        with torch.no_grad():
            hidden = model(**{name: torch.from_numpy(array) for name, array in feed.items()})[0].numpy()
    some = np.round(hidden[:, ::4, ::8].astype(float), 7)
    return {"case": case, "config": CASES[case], "seed": seed, "hidden[:, ::4, ::8]": some.tolist()} | {
        name: array.tolist() for name, array in feed.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [recorded(case, seed) for seed, case in enumerate(CASES)]
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    text = json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n"
    Path(__file__).with_name("xlm_roberta.json").write_text(text)
