"""The schema that editors use: up to date, and of one mind with `load` about the real manifests and shelves."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modelkit import manifest
from modelkit.errors import ManifestError

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "src" / "modelkit" / "manifest.schema.json"
MINILM = ROOT / "manifests" / "minilm-l6.yaml"
GOOD: dict[str, Any] = yaml.safe_load(MINILM.read_text())


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(COMMITTED.read_text()))


def edited(edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    edit(data)
    return data


def test_the_committed_schema_is_the_one_the_code_makes():
    # Compared as text, so that the file is byte for byte what the command writes.
    made = json.dumps(manifest.schema(), indent=2, ensure_ascii=False) + "\n"
    assert COMMITTED.read_text() == made, (
        "stale, regenerate it: python -m modelkit.manifest > src/modelkit/manifest.schema.json"
    )


def test_it_is_a_schema_of_the_draft_it_names():
    assert manifest.schema()["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    jsonschema.Draft202012Validator.check_schema(manifest.schema())


def test_every_key_of_a_manifest_has_a_description():
    found = manifest.schema()
    own = [found, *(part for name, part in found["$defs"].items() if name.startswith("manifest."))]
    keys = {name: body for part in own for name, body in part["properties"].items() if body is not True}
    assert [name for name, body in keys.items() if "description" not in body] == []


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_manifest_of_this_repository_is_accepted_by_both(validator, path):
    manifest.load(path)
    data = json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))
    assert list(validator.iter_errors(data)) == []


def test_minilm_is_read_as_written():
    found = manifest.load(MINILM)
    assert (found.name, found.task.kind, found.export.kind) == ("minilm-l6", "feature-extraction", "direct")
    assert found.source.first.options.revision == "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    assert [mirror.kind for mirror in found.source.mirrors] == ["package"]
    assert found.source.files == ("config.json", "model.safetensors", "tokenizer.json")
    assert found.task.options.text.max_tokens == 256
    assert [str(tensor) for tensor in found.signatures["model"].outputs] == [
        "float32[batch, sequence, 384]",
        "float32[batch, 384]",
    ]
    assert {name: (v.scheme.kind, v.channel, v.budget) for name, v in found.variants.items()} == {
        "int8": ("w8a8-per-token", "dev", 23_000_000),
        "int4": ("w4a8-per-token", "prod", 13_000_000),
    }
    assert found.variants["int8"].limits["parity"].cosine_min == 0.995
    lines = MINILM.read_text().splitlines()
    assert lines[found.place("variants.int8.budget").line - 1].strip() == "budget: 23 MB"


ACCEPTED = {
    "a scheme with its options in a mapping": lambda d: d["variants"]["int8"].update(scheme={"w8a8-per-token": {}}),
    "no mirrors": lambda d: d["source"].pop("mirrors"),
    "files by pattern": lambda d: d["source"].update(files=["*.onnx"]),
    "a variant with a scheme only": lambda d: d["variants"].update(other={"scheme": "fp32"}),
    "a known failure": lambda d: d.update(
        known_failures=[{"variant": "int4", "check": "parity", "because": "not yet", "until": "2099-01-01"}]
    ),
    "an excuse for a loose limit": lambda d: d["variants"]["int8"]["limits"]["parity"].update(
        because="not yet", until="2099-01-01"
    ),
}

REFUSED = {
    "an unknown key": lambda d: d.update(nmae="x"),
    "a missing key": lambda d: d.pop("license"),
    "a wrong name": lambda d: d.update(name="Mini LM"),
    "an unknown task": lambda d: d.update(task="no-such-task"),
    "an unknown exporter": lambda d: d.update(export="dirct"),
    "an unknown scheme": lambda d: d["variants"]["int8"].update(scheme="int7"),
    "an unknown option of a scheme": lambda d: d["variants"]["int8"].update(scheme={"w8a8-per-token": {"nothing": 1}}),
    "two kinds of scheme": lambda d: d["variants"]["int8"].update(scheme={"w8a8-per-token": {}, "fp32": {}}),
    "an unknown option of the task": lambda d: d["text"].update(max_token=3),
    "a wrong choice": lambda d: d["text"].update(pooling="max"),
    "a number as text": lambda d: d["text"].update(max_tokens="256"),
    "two kinds of source": lambda d: d["source"].update(package="a==1"),
    "no kind of source": lambda d: d["source"].pop("hub"),
    "a revision that is a number": lambda d: d["source"].update(revision=1234567),
    "mirrors of a mirror": lambda d: d["source"]["mirrors"][0].update(mirrors=[]),
    "a wrong size": lambda d: d["variants"]["int8"].update(budget="23 MBB"),
    "an empty size": lambda d: d["variants"]["int8"].update(budget=None),
    "a wrong tensor": lambda d: d["signature"]["inputs"].update(input_ids="int64"),
    "no inputs": lambda d: d["signature"].update(inputs={}),
    "no variants": lambda d: d.update(variants={}),
    "a wrong variant name": lambda d: d["variants"].update(INT8=d["variants"]["int8"]),
    "an unknown limit": lambda d: d["variants"]["int8"]["limits"]["parity"].update(cosine_maen=1),
    "a known failure without a day": lambda d: d.update(
        known_failures=[{"variant": "int4", "check": "parity", "because": "not yet"}]
    ),
}


@pytest.mark.parametrize("edit", ACCEPTED.values(), ids=ACCEPTED)
def test_both_accept(validator, tmp_path, edit):
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(edited(edit)))
    assert list(validator.iter_errors(edited(edit))) == []
    manifest.load(tmp_path / "m.yaml")


@pytest.mark.parametrize("edit", REFUSED.values(), ids=REFUSED)
def test_both_refuse(validator, tmp_path, edit):
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(edited(edit)))
    assert not validator.is_valid(edited(edit))
    with pytest.raises(ManifestError):
        manifest.load(tmp_path / "m.yaml")


def test_a_projects_own_check_is_left_to_load(validator):
    assert validator.is_valid(edited(lambda d: d["variants"]["int8"]["limits"].update({"our-own": {"most": 3}})))
