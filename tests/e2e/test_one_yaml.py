"""Another model of a known architecture is one YAML file, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import stand_ins
from modelkit import model
from stand_ins.new import new
from stand_ins.xlm_roberta import xlm_roberta

pytestmark = pytest.mark.slow

MANIFEST = """\
name: {name}
task: feature-extraction
license: MIT
source: {{path: weights, files: [config.json, model.safetensors, tokenizer.json]}}
export: direct
signature:
  inputs: {{{inputs}}}
  outputs:
    last_hidden_state: float32[batch, sequence, {width}]
    sentence_embedding: float32[batch, {width}]
text: {{max_tokens: 48, pooling: cls, prefixes: {{query: "the cat ", passage: "a dog "}}}}
variants:
  int8: {{scheme: w8a8-per-token, budget: 150 kB}}
"""


def another_bert(folder: Path) -> None:
    """Other dimensions, another activation, and a checkpoint with the prefix and the head of a classifier."""
    stand_ins.bert(
        folder, 7, hidden_size=48, num_attention_heads=6, intermediate_size=80, num_hidden_layers=3, vocab_size=90,
        max_position_embeddings=50, hidden_act="gelu_new",
    )  # fmt: skip
    tensors = {f"bert.{name}": array for name, array in load_file(folder / "model.safetensors").items()}
    save_file({**tensors, "classifier.weight": np.ones((2, 48), np.float32)}, folder / "model.safetensors")


def another_xlm_roberta(folder: Path) -> None:
    xlm_roberta(folder, 7, hidden_size=48, num_attention_heads=6, max_position_embeddings=50)


def another_new(folder: Path) -> None:
    new(folder, 7, hidden_size=48, num_attention_heads=6, rope_scaling=None)


def passed(folder: Path, *arguments: str) -> str:
    """What `python ARGUMENTS` says in `folder`, once it has succeeded."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**environment, "MODELKIT_STORE": str(folder / "store")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (another_bert, ("input_ids", "attention_mask", "token_type_ids")),
        (another_xlm_roberta, ("input_ids", "attention_mask")),
        (another_new, ("input_ids", "attention_mask")),
    ],
)
def test_one_yaml_file_makes_another_model_conform(
    tmp_path: Path, make: Callable[[Path], None], inputs: tuple[str, ...]
) -> None:
    make(tmp_path / "weights")
    name = make.__name__.replace("_", "-")
    taken = ", ".join(f'{one}: "int64[batch, sequence]"' for one in inputs)
    (tmp_path / f"{name}.yaml").write_text(MANIFEST.format(name=name, width=48, inputs=taken))

    told = passed(tmp_path, "-m", "pytest", "--modelkit", "--modelkit-drafts", f"{name}.yaml", "-v")

    for check in ("budget", "determinism", "hygiene", "invariance", "parity", "signature"):
        assert f"{name}.yaml::int8::{check} PASSED" in told
    assert "conforming" in told
    loaded = model.load(tmp_path / "build" / "dev" / "out" / "Final" / name)
    assert loaded.kinds == ("query", "passage")
    np.testing.assert_allclose(loaded.embed(["sat"]), loaded.embed(["sat"], kind="query"), atol=1e-6)
    assert not np.allclose(loaded.embed(["sat"], kind="passage"), loaded.embed(["sat"]), atol=1e-3)
