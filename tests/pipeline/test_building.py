"""pipeline.py: from a manifest to a finished folder, making only what is missing."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import servers
import small_models
import stand_ins
from modelkit import delivery, lock, manifest, model, pipeline
from modelkit.digests import digest_folder
from modelkit.errors import ManifestError, SourceError, StageError
from modelkit.exporters import direct
from modelkit.schemes import w8a8_per_token
from modelkit.stages import convert, download, finalize, quantize
from modelkit.stages.finalize import SUMS
from modelkit.store import Store
from modelkit.vocabulary import Artifact, Fetching

ALL = ["downloaded", "converted", "quantized", "finalized"]


@pytest.fixture
def project(tmp_path: Path, store_folder: Path) -> Path:
    """The manifest of a stand-in; the store is the test's own."""
    return stand_ins.project(tmp_path / "project")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that really ran, as they run."""
    seen: list[str] = []
    for stage in pipeline.STAGES:

        def run(*arguments: Any, stage: Any = stage, original: Callable[..., None] = stage.run) -> None:
            seen.append(stage.NAME)
            original(*arguments)

        monkeypatch.setattr(stage, "run", run)
    return seen


def prepared(path: Path, variant: str = "int8", *, force: bool = False) -> pipeline.Build:
    loaded = manifest.load(path)
    return pipeline.Pins(Store()).prepare(
        loaded, loaded.variants[variant], lock.read(path), Fetching(path.parent), force=force
    )


def built(path: Path, variant: str = "int8", *, force: bool = False) -> Artifact:
    return pipeline.build(prepared(path, variant, force=force), lock.read(path))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def locked(path: Path, **changes: Any) -> lock.Lock:
    """Write the lock that the manifest has earned, with `changes`."""
    loaded, store = manifest.load(path), Store()
    identity, files, _ = pipeline.resolve(loaded, store, Fetching(path.parent))
    artifacts = {name: dict(built(path, name).files) for name in loaded.variants}
    made = replace(lock.Lock(files, identity, lock.recipe(loaded), {"onnx": "0.1"}, artifacts), **changes)
    lock.path_of(path).write_text(lock.text(made))
    return made


# The first build


def test_every_stage_is_listed_once_in_the_order_of_the_checkpoints() -> None:
    assert [stage.NAME for stage in pipeline.STAGES] == ALL


def test_every_stage_reads_only_what_stands_before_it() -> None:
    for number, stage in enumerate(pipeline.STAGES):
        assert set(stage.INPUTS) <= set(ALL[:number])
        assert type(stage.VERSION) is int
        assert stage.run.__doc__


@pytest.mark.parametrize("variant", ["int8", "int4"])
def test_a_build_makes_a_folder_that_embeds(project: Path, variant: str) -> None:
    artifact = built(project, variant)
    assert not artifact.reused
    assert model.load(artifact.folder, 1).embed(["a cat", "the dog"]).shape == (2, 32)


def test_the_finished_folder_holds_what_a_consumer_needs(project: Path) -> None:
    assert sorted(built(project).files) == [SUMS, "config.json", "model.onnx", "modelkit.json", "tokenizer.json"]


def test_the_sums_are_those_of_the_files(project: Path) -> None:
    folder = built(project).folder
    lines = (folder / SUMS).read_text().splitlines()
    found = {name: entry.sha256 for name, entry in digest_folder(folder).items() if name != SUMS}
    assert lines == [f"{digest}  {name}" for name, digest in sorted(found.items())]


def test_the_chain_names_all_four_stages_with_the_key_of_each(project: Path) -> None:
    artifact = built(project)
    assert [stage.name for stage in artifact.chain] == ALL
    assert artifact.chain[-1].key == artifact.folder.parent.name


def test_both_variants_share_what_comes_before_their_scheme(project: Path, ran: list[str]) -> None:
    built(project, "int8")
    built(project, "int4")
    assert Counter(ran) == {"converted": 1, "quantized": 2, "finalized": 2}


def test_two_projects_with_the_same_model_share_the_store(tmp_path: Path, project: Path, ran: list[str]) -> None:
    first = built(project)
    ran.clear()
    second = built(stand_ins.project(tmp_path / "a second project"))
    assert ran == []
    assert second.digest == first.digest


def test_no_path_of_this_machine_is_in_what_comes_out(project: Path, tmp_path: Path) -> None:
    artifact = built(project)
    for path in artifact.folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


# What is reused, what is made again


def test_the_second_build_makes_nothing(project: Path, ran: list[str]) -> None:
    first = built(project)
    ran.clear()
    second = built(project)
    assert ran == []
    assert second.reused
    assert replace(second, reused=False) == first


def test_a_warm_build_reads_the_finished_files_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(project)
    verified = []
    find = Store.find

    def watched(self: Store, key: str, *, verify: bool = True) -> Artifact | None:
        found = find(self, key, verify=verify)
        if verify and found:
            verified.append(found.chain[-1].name)
        return found

    path = project
    locked(path)
    monkeypatch.setattr(Store, "find", watched)
    built(path)
    assert verified == ["finalized"]


CHANGES = {
    "a scheme option": (
        "scheme: w8a8-per-token", 'scheme: {w8a8-per-token: {activations_16bit: ["*.value.weight"]}}',
        ["quantized", "finalized"],
    ),
    "another scheme": ("scheme: w8a8-per-token", "scheme: fp16", ["quantized", "finalized"]),
    "the pooling": ("pooling: mean", "pooling: cls", ["converted", "quantized", "finalized"]),
    # Both stand in the card beside the model, which is part of what the next stage reads.
    "the length of a text": ("max_tokens: 32", "max_tokens: 16", ["converted", "quantized", "finalized"]),
    "the name": ("name: tiny", "name: small", ["converted", "quantized", "finalized"]),
    "a budget": ("budget: 1 MB\n  int4", "budget: 2 MB\n  int4", []),
    "a limit": ("cosine_mean: 0.5", "cosine_mean: 0.6", []),
    "the licence": ("license: Apache-2.0", "license: MIT", []),
    "the channel": ("channel: dev", "channel: prod", []),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_remakes_only_what_depends_on_it(project: Path, ran: list[str], change: str) -> None:
    old, new, expected = CHANGES[change]
    built(project)
    ran.clear()
    edit(project, old, new)
    built(project)
    assert ran == expected


def test_other_weights_remake_everything(project: Path, ran: list[str]) -> None:
    first = built(project)
    ran.clear()
    stand_ins.bert(project.parent / "weights", seed=1)
    second = built(project)
    assert ran == ["converted", "quantized", "finalized"]
    assert second.digest != first.digest


@pytest.mark.parametrize("stage", [convert, quantize, finalize])
def test_another_version_of_a_stage_remakes_it(
    project: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, stage: Any
) -> None:
    built(project)
    ran.clear()
    monkeypatch.setattr(stage, "VERSION", 99)
    built(project)
    # What comes after finds the same bytes as before, by content.
    assert ran == [stage.NAME]


@pytest.mark.parametrize(("module", "name"), [(direct, "converted"), (w8a8_per_token, "quantized")])
def test_another_version_of_an_exporter_or_a_scheme_remakes_its_stage(
    project: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    built(project)
    ran.clear()
    monkeypatch.setattr(module, "VERSION", 99)
    built(project)
    assert ran == [name]


def test_no_stage_hides_its_own_name_or_version_in_the_key(project: Path) -> None:
    for stage, module in zip(built(project).chain, pipeline.STAGES, strict=True):
        assert (stage.material["stage"], stage.material["version"]) == (module.NAME, module.VERSION)
        assert (
            not {"stage", "version"} & module.material(prepared(project).job, dict.fromkeys(module.INPUTS, "")).keys()
        )


def test_another_version_of_a_tool_remakes_what_it_writes(
    project: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built(project)
    ran.clear()
    monkeypatch.setattr(quantize, "tool", lambda name: "99.9")
    built(project)
    assert ran == ["quantized"]


def test_a_damaged_entry_is_dropped_and_made_again(project: Path, ran: list[str]) -> None:
    first = built(project)
    ran.clear()
    (first.folder / "model.onnx").write_bytes(b"damaged")
    build = prepared(project)
    again = pipeline.build(build)
    assert ran == ["finalized"]
    assert again.files == first.files
    assert any("model.onnx has other bytes" in line for line in build.store.dropped)


def test_a_damaged_entry_in_the_middle_is_noticed_when_it_is_read(project: Path, ran: list[str]) -> None:
    first = built(project)
    quantized = Store().find(first.chain[2].key)
    assert quantized is not None
    (quantized.folder / "model.onnx").write_bytes(b"damaged")
    shutil.rmtree(first.folder.parent)
    ran.clear()
    assert built(project).files == first.files
    assert ran == ["quantized", "finalized"] or ran == ["finalized", "quantized"]


def test_an_empty_store_is_filled_from_nothing_but_the_manifest(project: Path, store_folder: Path) -> None:
    first = built(project)
    locked(project)
    shutil.rmtree(store_folder)
    assert built(project).files == first.files


def test_force_makes_it_again_and_gets_the_same_bytes(project: Path, ran: list[str]) -> None:
    first = built(project)
    ran.clear()
    second = built(project, force=True)
    assert sorted(ran) == sorted(["converted", "quantized", "finalized"])
    assert second.files == first.files


def test_a_stage_that_is_not_reproducible_is_told_by_force(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = built(project)
    original = quantize.run

    def shaky(job: Any, inputs: Any, into: Path) -> None:
        original(job, inputs, into)
        with (into / "model.onnx.data").open("r+b") as file:
            file.write(b"\x55\xaa")

    monkeypatch.setattr(quantize, "run", shaky)
    with pytest.raises(StageError, match=r"not reproducible: model\.onnx\.data was"):
        built(project, force=True)
    monkeypatch.undo()
    assert first.folder.exists()


def test_a_stage_that_fails_names_the_variant_and_leaves_nothing(project: Path, store_folder: Path) -> None:
    edit(project, "block: 16, table_block: 32", "block: 64, table_block: 32")
    with pytest.raises(StageError, match=r"^tiny/int4 could not be quantized: tensor '.*' has 32 values"):
        built(project, "int4")
    names = {json.loads(path.read_text())["stage"] for path in store_folder.rglob("entry.json")}
    assert names == {"downloaded", "converted"}
    assert not list(store_folder.glob("building/*/*"))


def test_a_failed_build_leaves_the_other_variant_alone(project: Path) -> None:
    edit(project, "block: 16, table_block: 32", "block: 64, table_block: 32")
    with pytest.raises(StageError):
        built(project, "int4")
    assert built(project, "int8").files


def test_two_threads_that_want_one_artifact_build_it_once(project: Path, ran: list[str]) -> None:
    locked(project)
    shutil.rmtree(Store().root)
    ran.clear()
    builds = [prepared(project) for _ in range(2)]
    found: list[Artifact] = []
    threads = [threading.Thread(target=lambda b=b: found.append(pipeline.build(b))) for b in builds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0].files == found[1].files
    assert Counter(ran) == dict.fromkeys(ALL, 1)


# With a lock


def test_with_a_lock_the_same_manifest_gives_the_same_bytes(project: Path) -> None:
    made = locked(project)
    for variant in ("int8", "int4"):
        assert dict(built(project, variant).files) == made.artifacts[variant]


def test_a_lock_for_another_recipe_is_told_with_the_difference(project: Path) -> None:
    locked(project)
    edit(project, "pooling: mean", "pooling: cls")
    with pytest.raises(ManifestError) as caught:
        built(project)
    told = str(caught.value)
    assert "tiny.lock: was locked for another recipe: " in told
    assert "pooling: mean -> cls" in told
    assert f"run `modelkit lock {project}`" in told


def test_a_limit_may_change_under_a_lock(project: Path) -> None:
    locked(project)
    edit(project, "cosine_mean: 0.5", "cosine_mean: 0.6")
    assert built(project).reused


def test_a_source_byte_that_changed_under_a_lock_is_told_with_its_file(project: Path, store_folder: Path) -> None:
    locked(project)
    shutil.rmtree(store_folder)
    path = project.parent / "weights" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        SourceError, match=r"tiny/int8 could not be downloaded: path weights: model\.safetensors has sha256"
    ):
        built(project)


def test_a_source_that_changed_is_not_asked_while_the_store_has_its_bytes(project: Path) -> None:
    locked(project)
    (project.parent / "weights" / "model.safetensors").unlink()
    assert built(project).reused


def test_a_file_that_is_gone_under_a_lock_is_named(project: Path, store_folder: Path) -> None:
    locked(project)
    shutil.rmtree(store_folder)
    (project.parent / "weights" / "config.json").unlink()
    with pytest.raises(SourceError, match=r"config\.json"):
        built(project)


def other_digest(made: lock.Lock) -> dict[str, Any]:
    files = dict(made.artifacts["int8"])
    files["model.onnx"] = replace(files["model.onnx"], sha256="0" * 64)
    return {**made.artifacts, "int8": files}


def test_other_bytes_than_the_lock_says_are_told_with_the_tools_that_changed(project: Path) -> None:
    made = locked(project)
    lock.path_of(project).write_text(lock.text(replace(made, artifacts=other_digest(made))))
    with pytest.raises(StageError) as caught:
        built(project)
    told = str(caught.value)
    now = made.artifacts["int8"]["model.onnx"].sha256[:12]
    assert f"tiny/int8: model.onnx has sha256 {now}…, the lock says 000000000000… (onnx 0.1 -> " in told
    assert f"accept it with `modelkit lock {project}`" in told


def test_other_bytes_with_the_same_tools_say_so(project: Path) -> None:
    made = locked(project)
    lock.path_of(project).write_text(lock.text(replace(made, artifacts=other_digest(made), tools={})))
    with pytest.raises(StageError, match="with the same tools"):
        built(project)


def test_a_locked_tool_that_is_not_installed_is_told_as_such(project: Path) -> None:
    made = locked(project)
    changed = replace(made, artifacts=other_digest(made), tools={"no-such-tool": "1.0"})
    lock.path_of(project).write_text(lock.text(changed))
    with pytest.raises(StageError, match=r"no-such-tool 1\.0 -> not installed"):
        built(project)


def test_a_file_that_the_lock_does_not_know_is_told(project: Path) -> None:
    made = locked(project)
    files = {name: entry for name, entry in made.artifacts["int8"].items() if name != "config.json"}
    lock.path_of(project).write_text(lock.text(replace(made, artifacts={"int8": files})))
    with pytest.raises(StageError, match=r"config\.json has sha256 .*, the lock says nothing"):
        built(project)


def test_a_lock_that_names_no_bytes_of_a_variant_is_refused(project: Path) -> None:
    locked(project, artifacts={})
    with pytest.raises(ManifestError, match=r"tiny\.lock: names no finished files of int8; run `modelkit lock"):
        built(project)


def test_a_config_with_fewer_layers_than_the_weights_is_refused(project: Path) -> None:
    stand_ins.bert(project.parent / "weights")
    config = project.parent / "weights" / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
    with pytest.raises(StageError, match=r"the weights hold 'encoder\.layer\.1\..*' and 15 more, which the model of"):
        built(project)


# A draft


def test_a_draft_takes_what_its_source_serves_now(project: Path) -> None:
    first = built(project)
    stand_ins.bert(project.parent / "weights", seed=5)
    assert built(project).digest != first.digest


def test_a_draft_can_be_asked_for_beside_a_stale_lock(project: Path) -> None:
    locked(project)
    edit(project, "pooling: mean", "pooling: cls")
    loaded = manifest.load(project)
    build = pipeline.Pins(Store()).prepare(loaded, loaded.variants["int8"], None, Fetching(project.parent))
    assert pipeline.build(build).files


def test_a_source_that_is_not_there_is_told(project: Path) -> None:
    shutil.rmtree(project.parent / "weights")
    with pytest.raises(SourceError, match="path weights: "):
        built(project)


def test_resolving_leaves_nothing_half_done_behind(project: Path, store_folder: Path) -> None:
    shutil.rmtree(project.parent / "weights")
    with pytest.raises(SourceError):
        pipeline.resolve(manifest.load(project), Store(), Fetching(project.parent))
    assert not list(store_folder.glob("building/*/*"))
    assert not list(store_folder.glob("objects/*"))


# What does not fit together


def test_a_tokenizer_larger_than_the_table_is_told_before_the_export(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.bert(project.parent / "weights", vocab_size=20)
    with pytest.raises(StageError, match=r"tiny/int8 could not be converted: tokenizer\.json knows ids up to"):
        built(project)


def test_a_source_without_its_weights_pattern_is_told(project: Path) -> None:
    edit(project, '"*.safetensors"', '"*.tensors"')
    with pytest.raises(StageError, match=r"no \*\.safetensors file in the source"):
        built(project)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tokenizer.json", "download it into that folder, or make it there: AutoTokenizer.from_pretrained(FOLDER)"),
        ("config.json", "download it into that folder"),
    ],
)
def test_a_wanted_file_that_the_folder_lacks_is_told_with_the_folder_and_how_to_come_by_it(
    project: Path, name: str, told: str
) -> None:
    (project.parent / "weights" / name).unlink()
    with pytest.raises(StageError) as caught:
        built(project)
    assert str(caught.value).startswith(f"tiny/int8 could not be converted: no {name} in path weights; {told}")
    assert "source.files" not in str(caught.value)


def test_a_file_that_the_manifest_does_not_want_is_to_be_added_to_it(project: Path) -> None:
    edit(project, ", tokenizer.json]", "]")
    with pytest.raises(StageError, match=r"no tokenizer\.json in path weights; add it to `source\.files`"):
        built(project)


def test_a_wanted_tokenizer_of_which_half_is_there_asks_for_the_other_half(project: Path) -> None:
    edit(project, ", tokenizer.json]", ", tokenizer.json, vocab.json]")
    (project.parent / "weights" / "tokenizer.json").rename(project.parent / "weights" / "vocab.json")
    with pytest.raises(StageError, match=r"path weights, but vocab\.json; add merges\.txt to `source\.files`"):
        built(project)


def test_a_wanted_file_that_a_hub_lacks_is_told_with_the_repository(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = project.parent / "weights"
    hub = servers.Hub({name: (weights / name).read_bytes() for name in ("config.json", "model.safetensors")})
    edit(project, "path: weights", "hub: someone/model")
    with hub.running():
        servers.use_hub(monkeypatch, tmp_path, hub.url)
        with pytest.raises(StageError) as caught:
            built(project)
    assert (
        "no tokenizer.json in hub someone/model; download it into a folder, which `source` names as `path`, or make"
        in (str(caught.value))
    )


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_finished_folder_without_a_file_is_told_to_be_incomplete(project: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(built(project).folder, tmp_path / "copy")
    folder.chmod(0o755)
    (folder / name).unlink()
    with pytest.raises(StageError) as caught:
        model.load(folder)
    assert str(caught.value) == f"{folder}: {name} is missing; the folder is incomplete: build it again"


def test_a_folder_that_has_lost_its_sums_too_is_incomplete_without_its_tokenizer(project: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built(project).folder, tmp_path / "copy")
    folder.chmod(0o755)
    for name in (SUMS, "tokenizer.json"):
        (folder / name).unlink()
    with pytest.raises(StageError, match=r"copy: tokenizer\.json is missing; the folder is incomplete"):
        model.load(folder)


def test_a_prebuilt_model_goes_all_the_way(tmp_path: Path, project: Path) -> None:
    small_models.exported(project.parent / "weights", tmp_path / "onnx")
    for path in (tmp_path / "onnx").iterdir():
        path.rename(project.parent / "weights" / path.name)
    edit(project, '"*.safetensors"', '"model.onnx*"')
    edit(project, "export: direct", "export: prebuilt")
    for variant in ("int8", "int4"):
        assert model.load(built(project, variant).folder, 1).embed(["a cat"]).shape == (1, 32)


# Delivered


def test_a_build_is_delivered_and_loads_from_there(project: Path, tmp_path: Path) -> None:
    loaded = manifest.load(project)
    for name, variant in loaded.variants.items():
        folder = delivery.folder_of(loaded, variant, tmp_path / "build")
        delivery.deliver(built(project, name), folder)
        assert folder.relative_to(tmp_path).as_posix() == f"build/{variant.channel}/out/Final/tiny"
        assert model.load(folder, 1).embed(["a cat"]).shape == (1, 32)


def test_downloads_are_checked_by_content_and_not_fetched_again_by_force(project: Path, ran: list[str]) -> None:
    locked(project)
    ran.clear()
    built(project, force=True)
    assert download.NAME not in ran


@pytest.mark.parametrize("scheme", ["fp32", "w8a8-per-token"])
@pytest.mark.parametrize(("value", "held"), [(np.nan, "NaN"), (np.inf, "infinity among its values")])
def test_a_damaged_weight_is_refused_by_name_whatever_the_scheme(
    project: Path, scheme: str, value: float, held: str
) -> None:
    project.write_text(project.read_text().replace("scheme: w8a8-per-token", f"scheme: {scheme}"))
    path = project.parent / "weights" / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer.0.output.LayerNorm.weight"][3] = value
    save_file(tensors, path)
    with pytest.raises(StageError, match=rf"tensor encoder\.layer\.0\.output\.LayerNorm\.weight holds {held}"):
        built(project)
