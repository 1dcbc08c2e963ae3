"""The recipes of docs/adding.md work as they stand there, in another package and in a project of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import stand_ins

PAGE = Path(__file__).parents[2] / "docs" / "adding.md"
RECIPES = {
    Path(title): code
    for title, code in re.findall(r'^```python title="(.+?)"\n(.*?)^```$', PAGE.read_text("utf-8"), re.M | re.S)
}

MANIFEST = {
    "name": "tiny",
    "task": "feature-extraction",
    "license": "Apache-2.0",
    "source": {"path": "weights", "files": ["config.json", "*.safetensors", "tokenizer.json"]},
    "export": "direct",
    "signature": {
        "inputs": dict.fromkeys(["input_ids", "attention_mask", "token_type_ids"], "int64[batch, sequence]"),
        "outputs": {
            "last_hidden_state": "float32[batch, sequence, 32]",
            "sentence_embedding": "float32[batch, 32]",
        },
    },
    "text": {"max_tokens": 32},
    "variants": {"small": {"scheme": "fp32"}},
}


def written(folder: Path, **changes: object) -> Path:
    """A manifest in `folder`; YAML reads JSON."""
    path = folder / "tiny.yaml"
    path.write_text(json.dumps({**MANIFEST, **changes}))
    return path


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    """`python ARGUMENTS` in `folder`, where the recipes' package is installed; its output, if it exits with `code`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**environment, "PYTHONPATH": str(folder / "installed")},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def build(folder: Path) -> Path:
    """The finished folder of the manifest there."""
    run(folder, "-c", "from modelkit.cli import main; main()", "build", "tiny.yaml", "--drafts")
    return folder / "build" / "dev" / "out" / "Final" / "tiny"


@pytest.fixture
def project(tmp_path: Path, store_folder: Path) -> Path:
    """A folder with weights, and with every recipe of a shelf installed as a distribution with entry points."""
    stand_ins.bert(tmp_path / "weights")
    package = tmp_path / "installed" / "recipes"
    metadata = tmp_path / "installed" / "recipes-1.0.dist-info"
    for folder in (package, metadata):
        folder.mkdir(parents=True)
    points = []
    for path, code in RECIPES.items():
        if path.parts[0] == "src":
            (package / path.name).write_text(code)
            points.append(f"[modelkit.{path.parent.name}]\n{path.stem.replace('_', '-')} = recipes.{path.stem}\n")
    (package / "__init__.py").touch()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: recipes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("\n".join(points))
    return tmp_path


def test_there_is_a_recipe_for_each_thing() -> None:
    shelves = {path.parent.name for path in RECIPES}
    assert shelves == {"sources", "architectures", "schemes", "tasks", "checks", "faults"}


def test_the_source_serves_a_build(project: Path) -> None:
    with zipfile.ZipFile(project / "weights.zip", "w") as archive:
        for file in (project / "weights").iterdir():
            archive.write(file, file.name)
    shutil.rmtree(project / "weights")
    written(project, source={"archive": "weights.zip", "files": ["*.json", "*.safetensors"]})

    assert (build(project) / "model.onnx").exists()


def test_the_architecture_gives_the_mean_of_the_table(project: Path) -> None:
    table = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    config = {"model_type": "static-embeddings", "vocab_size": 64, "hidden_size": 32}
    (project / "weights" / "config.json").write_text(json.dumps(config))
    save_file({"embeddings.weight": table}, project / "weights" / "model.safetensors")
    signature = {**MANIFEST["signature"], "inputs": dict.fromkeys(["input_ids", "attention_mask"], "int64[b, s]")}
    written(project, signature=signature, text={"max_tokens": 32, "normalize": False})

    got = run(
        project, "-c", "import sys, modelkit.model as m; print(m.load(sys.argv[1]).embed(['the cat']).tolist())",
        str(build(project)),
    )  # fmt: skip

    ids = stand_ins.tokenizer().encode("the cat").ids
    assert np.allclose(json.loads(got)[0], table[ids].mean(0), atol=1e-6)


def test_the_scheme_makes_the_model_smaller(project: Path) -> None:
    written(project)
    whole = (build(project) / "model.onnx").stat().st_size
    shutil.rmtree(project / "build")
    written(project, variants={"small": {"scheme": "w8-weights"}})

    assert (build(project) / "model.onnx").stat().st_size < whole / 2


def test_the_task_gives_its_own_object(project: Path) -> None:
    written(project, task="sentence-similarity")

    got = run(
        project, "-c", "import sys, modelkit.model as m; print(m.load(sys.argv[1]).similarity('a cat', 'a cat'))",
        str(build(project)),
    )  # fmt: skip

    assert float(got) == pytest.approx(1)


@pytest.mark.parametrize(("normalize", "outcome"), [(True, "PASSED"), (False, "FAILED")])
def test_the_project_s_own_check_judges(project: Path, normalize: bool, outcome: str) -> None:
    for path, code in RECIPES.items():
        if path.parts[0] == "conformance":
            (project / path).parent.mkdir(parents=True)
            (project / path).write_text(code)
    written(project, text={"max_tokens": 32, "normalize": normalize})

    told = run(
        project, "-m", "pytest", "--modelkit", "--modelkit-drafts", "tiny.yaml", "-v", "-k", "unit-length",
        code=0 if normalize else 1,
    )  # fmt: skip

    assert f"tiny.yaml::small::unit-length {outcome}" in told


def test_the_fault_is_noticed(project: Path) -> None:
    written(project)

    told = run(
        project, "-c", "from modelkit.cli import main; main()",
        "prove", "tiny/small", "tiny.yaml", "--fault", "bias-doubled",
    )  # fmt: skip

    assert ".bias is doubled" in told
    assert "tiny/small: 1 of 1 faults noticed" in told
