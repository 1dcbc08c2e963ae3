"""`modelkit.manifest`: what it reads, and that every mistake is told at its place. Shelves are stand-ins."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelkit import kinds, manifest, yaml_marks
from modelkit.errors import USAGE, ManifestError
from modelkit.manifest_keys import DEFAULT_FILES, UNITS, parse_size, parse_tensor
from modelkit.vocabulary import Choice, KnownFailure, Manifest, Place, TensorSpec

GOOD = """\
name: tiny
task: feature-extraction
license: Apache-2.0
source:
  hub: owner/tiny
  revision: 1110a243fdf4706b3f48f1d95db1a4f5529b4d41
  mirrors:
    - package: tiny==0.1.0
export: direct
signature:
  inputs:
    input_ids: int64[batch, sequence]
  outputs:
    embedding: float32[batch, 384]
text: {max_tokens: 256, pooling: mean}
variants:
  int8:
    channel: dev
    scheme: plain
    budget: 23 MB
    limits:
      parity: {mean: 0.997}
  int4:
    scheme: {blocked: {block: 16}}
known_failures:
  - {variant: int4, check: size, because: "too large for now", until: 2027-03-01}
"""


@dataclass(frozen=True)
class Hub:
    hub: str
    revision: str


@dataclass(frozen=True)
class Package:
    package: str
    folder: str | None = None


@dataclass(frozen=True)
class Text:
    max_tokens: int = 512
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True


@dataclass(frozen=True)
class Extraction:
    text: Text = Text()


@dataclass(frozen=True)
class Generation:
    chat: str


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass(frozen=True)
class Prebuilt:
    file: str


@dataclass(frozen=True)
class Blocked:
    block: int | Literal["row"] = 32

    def __post_init__(self) -> None:
        if isinstance(self.block, int) and self.block % 16:
            raise ValueError(f"a block of {self.block} is no multiple of 16")


@dataclass(frozen=True)
class Picky:
    depth: int = 1

    def __post_init__(self) -> None:
        if self.depth > 1:
            raise ManifestError("too deep for this scheme")


@dataclass(frozen=True)
class Parity:
    mean: float = field(default=0.99, metadata={"sense": ">="})
    worst: float = field(default=0.98, metadata={"sense": ">="})
    drift: float | None = field(default=0.1, metadata={"sense": "<="})
    extra: float | None = field(default=None, metadata={"sense": "<="})
    names: tuple[str, ...] = ()


SHELVES: dict[str, dict[str, type]] = {
    "sources": {"hub": Hub, "package": Package},
    "tasks": {"feature-extraction": Extraction, "text-generation": Generation},
    "exporters": {"direct": Nothing, "prebuilt": Prebuilt},
    "schemes": {"fp32": Nothing, "plain": Nothing, "blocked": Blocked, "picky": Picky},
    "checks": {"parity": Parity, "size": Nothing},
}


def stand_in_names(shelf: str, project: Path | None = None) -> tuple[str, ...]:
    return tuple(sorted(SHELVES[shelf]))


def stand_in_load(shelf: str, kind: str, project: Path | None = None) -> SimpleNamespace:
    if kind not in SHELVES[shelf]:
        raise ManifestError(f"unknown {shelf.rstrip('s')} '{kind}'{kinds.did_you_mean(kind, SHELVES[shelf])}")
    return SimpleNamespace(Options=SHELVES[shelf][kind], __name__=f"modelkit.{shelf}.{kind}")


@pytest.fixture(autouse=True, scope="module")
def _shelves() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "names", stand_in_names)
        patch.setattr(kinds, "load", stand_in_load)
        patch.setattr(manifest, "_today", lambda: date(2026, 1, 1))
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests") / "tiny.yaml"


@pytest.fixture
def read(path: Path) -> Callable[[str | bytes], Manifest]:
    def read(content: str | bytes) -> Manifest:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return manifest.load(path)

    return read


@pytest.fixture
def mistakes(path: Path, read: Callable[[str | bytes], Manifest]) -> Callable[[str | bytes], list[str]]:
    """The lines of the error, without the path that starts each of them."""

    def mistakes(content: str | bytes) -> list[str]:
        with pytest.raises(ManifestError) as caught:
            read(content)
        lines = caught.value.mistakes
        assert all(line.startswith(f"{path}:") and "\n" not in line for line in lines)
        return [line.removeprefix(f"{path}:") for line in lines]

    return mistakes


# --- What is read


def test_a_manifest_without_mistakes_is_read_whole(read, path):
    found = read(GOOD)
    assert (found.path, found.name, found.license) == (path, "tiny", "Apache-2.0")
    assert found.task == Choice("feature-extraction", Extraction(Text(max_tokens=256)))
    assert found.source.first == Choice("hub", Hub("owner/tiny", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"))
    assert found.source.mirrors == (Choice("package", Package("tiny==0.1.0")),)
    assert found.export == Choice("direct", Nothing())
    assert found.signatures["model"].inputs == (TensorSpec("input_ids", "int64", ("batch", "sequence")),)
    assert found.signatures["model"].outputs == (TensorSpec("embedding", "float32", ("batch", 384)),)
    assert found.variants["int8"].budget == 23_000_000
    assert found.variants["int8"].limits == {"parity": Parity(mean=0.997)}
    assert found.variants["int4"].scheme == Choice("blocked", Blocked(16))
    assert found.known_failures == (
        KnownFailure("int4", "size", "too large for now", date(2027, 3, 1), Place(path, 26, 5)),
    )


def test_variants_and_tensors_keep_the_order_of_the_file(read):
    assert list(read(GOOD).variants) == ["int8", "int4"]


def test_every_key_knows_its_place(read, path):
    found = read(GOOD)
    assert found.place("variants.int8.limits.parity.mean") == Place(path, 22, 16)
    assert found.place("source.mirrors.0.package") == Place(path, 8, 7)
    assert found.place("known_failures.0.until") == Place(path, 26, 64)
    assert found.place("variants.int4.budget") == Place(path, 23, 3), "left out, so its parent's place"


def test_files_default_to_what_the_stages_read(read):
    assert read(GOOD).source.files == DEFAULT_FILES


def test_files_can_be_named(read):
    assert read(GOOD.replace("  mirrors:", "  files: ['*.onnx']\n  mirrors:")).source.files == ("*.onnx",)


def test_a_model_has_to_run_in_onnxruntime_by_default(read):
    assert read(GOOD).runtimes == ("onnxruntime",)


def test_a_model_may_have_to_run_elsewhere(read):
    assert read(f"{GOOD}runtimes: [onnxruntime, onnxruntime-web]\n").runtimes == ("onnxruntime", "onnxruntime-web")


def test_the_options_of_a_task_may_be_left_out_when_they_have_defaults(read):
    assert read(GOOD.replace("text: {max_tokens: 256, pooling: mean}\n", "")).task.options == Extraction()


@pytest.mark.parametrize(
    ("name", "channel"), [("int8", "dev"), ("int8-small", "dev"), ("int4", "prod"), ("int4.g16", "prod"), ("x", "dev")]
)
def test_a_variant_goes_to_the_channel_of_its_name_by_default(read, name, channel):
    text = GOOD.replace("    channel: dev\n", "").replace("  int4:", "  other:").replace("  int8:", f"  {name}:")
    assert read(text.replace("variant: int4", "variant: other")).variants[name].channel == channel


def test_a_variant_without_a_scheme_stays_in_float32(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(GOOD.replace("    scheme: plain\n", ""))
    assert manifest.load(tmp_path / "tiny.yaml").variants["int8"].scheme == Choice("fp32", Nothing())


def test_a_channel_that_is_named_wins(read):
    assert read(GOOD.replace("channel: dev", "channel: beta")).variants["int8"].channel == "beta"


def test_a_kind_with_empty_options_is_the_kind(read):
    assert read(GOOD.replace("export: direct", "export: {direct: {}}")).export == Choice("direct", Nothing())


def test_numbers_in_scientific_notation_are_numbers(read):
    assert read(GOOD.replace("{mean: 0.997}", "{drift: 1e-3}")).variants["int8"].limits["parity"].drift == 0.001


def test_a_whole_number_will_do_for_a_number(read):
    assert read(GOOD.replace("{mean: 0.997}", "{mean: 1}")).variants["int8"].limits["parity"].mean == 1


def test_a_byte_order_mark_is_not_a_mistake(read):
    assert read("\ufeff" + GOOD).name == "tiny"


def test_the_project_and_its_checks_are_found_from_the_manifest(monkeypatch, tmp_path):
    (tmp_path / "conformance").mkdir()
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "tiny.yaml").write_text(GOOD)
    seen = set()

    def load(shelf: str, kind: str, project: Path | None = None) -> SimpleNamespace:
        seen.add((shelf, project))
        return stand_in_load(shelf, kind)

    monkeypatch.setattr(kinds, "load", load)
    manifest.load(tmp_path / "manifests" / "tiny.yaml")
    assert ("checks", tmp_path.resolve()) in seen


# --- Sizes and tensors


@given(
    number=st.decimals(min_value=1, max_value=9999, places=3).map(lambda n: n.normalize()),
    unit=st.sampled_from(sorted(set(UNITS) - {"B"})),
    space=st.sampled_from(["", " "]),
)
def test_a_size_means_what_it_says(number, unit, space):
    exact = number * UNITS[unit]
    if exact == int(exact):
        assert parse_size(f"{number:f}{space}{unit}") == exact


@given(st.integers(1, 10**15 - 1), st.sampled_from(sorted(UNITS)))
def test_sizes_round_trip_in_every_unit(count, unit):
    assert parse_size(f"{count} {unit}") == count * UNITS[unit]
    assert Decimal(parse_size(f"{count} {unit}")) / UNITS[unit] == count


@pytest.mark.parametrize(
    "text", ["23", "23 MBB", "MB", "-1 MB", "0 B", "1.5 B", "1e3 MB", "23 mb", "", "٢٣ MB", "nan MB", 23, None]
)
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(ValueError, match=r"a size such as|a whole number of bytes"):
        parse_size(text)


def test_tensors_may_have_no_axes():
    assert parse_tensor("float32[]") == ("float32", ())


@pytest.mark.parametrize("text", ["int64", "int64[a,]", "int64[0]", "int64[-1]", "int64[a b]", "int64[a][b]", 3, ""])
def test_what_is_not_a_tensor_is_refused(text):
    with pytest.raises(ValueError, match=r"a tensor such as|each axis"):
        parse_tensor(text)


# --- Mistakes: what is replaced in GOOD, by what, and the line that tells it

TABLE = {
    "unknown key at the top": ("name: tiny", "nmae: tiny", "1:1: nmae: unknown key, did you mean 'name'?"),
    "unknown key near the task's own": ("text: {", "txet: {", "15:1: txet: unknown key, did you mean 'text'?"),
    "unknown key in a variant": (
        "    channel: dev",
        "    chanel: dev",
        "18:5: variants.int8.chanel: unknown key, did you mean 'channel'?",
    ),
    "unknown key in options": (
        "max_tokens: 256",
        "max_token: 256",
        "15:8: text.max_token: unknown key, did you mean 'max_tokens'?",
    ),
    "unknown key in a source": (
        "  revision: 1110a243fdf4706b3f48f1d95db1a4f5529b4d41\n",
        "  revision: abc\n  mirors: []\n",
        "7:3: source.mirors: unknown key, did you mean 'mirrors'?",
    ),
    "unknown key in a limit": (
        "{mean: 0.997}",
        "{maen: 0.997}",
        "22:16: variants.int8.limits.parity.maen: unknown key, did you mean 'mean'?",
    ),
    "unknown key in a known failure": (
        'because: "too',
        'becuase: "too',
        "26:34: known_failures.0.becuase: unknown key, did you mean 'because'?",
    ),
    "a runtime that nothing is known of": (
        "known_failures:\n",
        "runtimes: [onnxruntime-weeb]\nknown_failures:\n",
        "25:12: runtimes.0: unknown runtime 'onnxruntime-weeb', did you mean 'onnxruntime-web'?",
    ),
    "no runtime at all": (
        "known_failures:\n",
        "runtimes: []\nknown_failures:\n",
        "25:1: runtimes: expected at least one entry, got a list with nothing in it",
    ),
    "mirrors inside a mirror": (
        "    - package: tiny==0.1.0",
        "    - {package: tiny==0.1.0, mirrors: []}",
        "8:30: source.mirrors.0.mirrors: unknown key, expected one of: folder, package",
    ),
    "missing at the top": ("license: Apache-2.0\n", "", "1:1: license: missing"),
    "nothing in a variant": (
        "    scheme: plain\n",
        "    scheme:\n",
        "19:5: variants.int8.scheme: expected a kind, or one kind with its options in a mapping, got nothing",
    ),
    "missing option of a kind": ("export: direct", "export: prebuilt", "9:1: export.file: missing"),
    "missing option in a mapping": (
        "export: direct",
        "export: {prebuilt: {}}",
        "9:10: export.prebuilt.file: missing",
    ),
    "missing option of a task": (
        "task: feature-extraction\n",
        "task: text-generation\n",
        "1:1: chat: missing",
    ),
    "missing in a source": (
        "  revision: 1110a243fdf4706b3f48f1d95db1a4f5529b4d41\n",
        "",
        "4:1: source.revision: missing",
    ),
    "unknown task": (
        "task: feature-extraction",
        "task: feature-extractoin",
        "2:1: task: unknown task 'feature-extractoin', did you mean 'feature-extraction'?",
    ),
    "unknown exporter": (
        "export: direct",
        "export: dirct",
        "9:1: export: unknown exporter 'dirct', did you mean 'direct'?",
    ),
    "unknown check": (
        "      parity:",
        "      partiy:",
        "22:7: variants.int8.limits.partiy: unknown check 'partiy', did you mean 'parity'?",
    ),
    "unknown check in a known failure": (
        "check: size",
        "check: sise",
        "26:21: known_failures.0.check: unknown check 'sise', did you mean 'size'?",
    ),
    "unknown variant in a known failure": (
        "variant: int4",
        "variant: int9",
        "26:6: known_failures.0.variant: unknown variant 'int9', did you mean 'int8'?",
    ),
    "two kinds for one place": (
        "export: direct",
        "export: {direct: {}, prebuilt: {}}",
        "9:1: export: expected a kind, or one kind with its options in a mapping, got a mapping",
    ),
    "two kinds of source": (
        "  hub: owner/tiny",
        "  hub: owner/tiny\n  package: tiny==1",
        "6:3: source.package: a source has one kind and this one is 'hub' already; other places go under mirrors",
    ),
    "no kind of source": ("  hub: owner/tiny\n", "", "4:1: source: expected one of the keys hub, package"),
    "misspelt kind of source": (
        "  hub: owner/tiny",
        "  hubb: owner/tiny",
        "5:3: source.hubb: unknown key, did you mean 'hub'?",
    ),
    "wrong size": (
        "budget: 23 MB",
        "budget: 23 MBB",
        "20:5: variants.int8.budget: expected a size such as '23 MB', got '23 MBB'",
    ),
    "size without a unit": (
        "budget: 23 MB",
        "budget: 23000000",
        "20:5: variants.int8.budget: expected a size such as '23 MB', got 23000000",
    ),
    "size left empty": (
        "budget: 23 MB",
        "budget:",
        "20:5: variants.int8.budget: expected a size such as '23 MB', got nothing",
    ),
    "channel left empty": ("channel: dev", "channel:", "18:5: variants.int8.channel: expected text, got nothing"),
    "wrong name": (
        "name: tiny",
        "name: Tiny Model",
        "1:1: name: expected a name of a-z, 0-9, '.', '_' and '-' that starts with a letter or a digit, "
        "got 'Tiny Model'",
    ),
    "wrong variant name": (
        "  int8:",
        "  INT8:",
        "17:3: variants.INT8: expected a name of a-z, 0-9, '.', '_' and '-' that starts with a letter or a digit, "
        "got 'INT8'",
    ),
    "wrong element type": (
        "int64[batch, sequence]",
        "int46[batch, sequence]",
        "12:5: signature.inputs.input_ids: unknown element type 'int46', did you mean 'int64'?",
    ),
    "wrong axis": (
        "float32[batch, 384]",
        "float32[batch, 0]",
        "14:5: signature.outputs.embedding: expected each axis to be a name or a whole number above 0, "
        "got 'float32[batch, 0]'",
    ),
    "no inputs": (
        "  inputs:\n    input_ids: int64[batch, sequence]\n",
        "  inputs: {}\n",
        "11:3: signature.inputs: expected at least one entry, got a mapping with nothing in it",
    ),
    "number for text": (
        "license: Apache-2.0",
        "license: 2.0",
        "3:1: license: expected text, got 2.0, which YAML reads as a number; quote it: '2.0'",
    ),
    "no for text": (
        "license: Apache-2.0",
        "license: no",
        "3:1: license: expected text, got no, which YAML reads as false; quote it: 'no'",
    ),
    "on for a kind": (
        "export: direct",
        "export: on",
        "9:1: export: expected a kind, or one kind with its options in a mapping, "
        "got on, which YAML reads as true; quote it: 'on'",
    ),
    "tilde for text": (
        "license: Apache-2.0",
        "license: ~",
        "3:1: license: expected text, got ~, which YAML reads as nothing; quote it: '~'",
    ),
    "an all-digit revision": (
        "revision: 1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        "revision: 1234567",
        "6:3: source.revision: expected text, got 1234567, which YAML reads as a number; quote it: '1234567'",
    ),
    "a scientific revision": (
        "revision: 1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        "revision: 1234e567",
        "6:3: source.revision: expected text, got 1234e567, which YAML reads as a number; quote it: '1234e567'",
    ),
    "a revision of forty digits": (
        "revision: 1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        f"revision: {'12345' * 8}",
        f"6:3: source.revision: expected text, got {'12345' * 8}, which YAML reads as a number; "
        f"quote it: '{'12345' * 8}'",
    ),
    "quoted number": (
        "max_tokens: 256",
        "max_tokens: '256'",
        "15:8: text.max_tokens: expected a whole number, got '256'; take the quotes away",
    ),
    "fraction for a whole number": (
        "max_tokens: 256",
        "max_tokens: 2.5",
        "15:8: text.max_tokens: expected a whole number, got 2.5",
    ),
    "true for a number": (
        "max_tokens: 256",
        "max_tokens: true",
        "15:8: text.max_tokens: expected a whole number, got true",
    ),
    "wrong choice": (
        "pooling: mean",
        "pooling: max",
        "15:25: text.pooling: expected 'mean' or 'cls', got 'max'",
    ),
    "number for true or false": (
        "pooling: mean",
        "normalize: 1",
        "15:25: text.normalize: expected true or false, got 1",
    ),
    "one of two types": (
        "{block: 16}",
        "{block: 1.5}",
        "24:24: variants.int4.scheme.blocked.block: expected a whole number or 'row', got 1.5",
    ),
    "list for a mapping": (
        "text: {max_tokens: 256, pooling: mean}",
        "text: [1]",
        "15:1: text: expected a mapping, got a list",
    ),
    "text for a list": (
        "{mean: 0.997}",
        "{names: word}",
        "22:16: variants.int8.limits.parity.names: expected a list, got 'word'",
    ),
    "text for a source": (
        "    - package: tiny==0.1.0",
        "    - tiny==0.1.0",
        "8:7: source.mirrors.0: expected a mapping, got 'tiny==0.1.0'",
    ),
    "options that contradict": (
        "{block: 16}",
        "{block: 17}",
        "24:14: variants.int4.scheme.blocked: a block of 17 is no multiple of 16",
    ),
    "options refused by their module": (
        "{blocked: {block: 16}}",
        "{picky: {depth: 2}}",
        "24:14: variants.int4.scheme.picky: too deep for this scheme",
    ),
    "a limit that is not a number": (
        "{mean: 0.997}",
        "{mean: .nan}",
        "22:16: variants.int8.limits.parity.mean: expected a finite number, got .nan",
    ),
    "an endless limit": (
        "{mean: 0.997}",
        "{drift: .inf}",
        "22:16: variants.int8.limits.parity.drift: expected a finite number, got .inf",
    ),
    "limits without a mapping": (
        "{mean: 0.997}",
        "0.997",
        "22:7: variants.int8.limits.parity: expected a mapping, got 0.997",
    ),
    "a pattern that leaves the source": (
        "  mirrors:",
        "  files: [../x]\n  mirrors:",
        "7:11: source.files.0: expected a pattern inside the source, such as '*.safetensors', got '../x'",
    ),
    "a day that is not one": (
        "until: 2027-03-01",
        "until: soon",
        "26:64: known_failures.0.until: expected a day such as 2027-03-01, got 'soon'",
    ),
    "a day that does not exist": (
        "until: 2027-03-01",
        "until: 2027-02-30",
        "26:64: known_failures.0.until: expected a day that exists, got '2027-02-30'",
    ),
    "an excuse without words": (
        '"too large for now"',
        '" "',
        "26:34: known_failures.0.because: expected one line of text, got ' '",
    ),
    "duplicate key": (
        "license: Apache-2.0",
        "license: Apache-2.0\nname: other",
        "4:1: name: duplicate key, the first one is on line 1",
    ),
    "anchor": ("name: tiny", "name: &n tiny", "1:1: name: anchor '&n'; a manifest is flat and has no anchors"),
    "explicit tag": (
        "name: tiny",
        "name: !!str tiny",
        "1:1: name: explicit tag 'tag:yaml.org,2002:str'; a manifest has no tags",
    ),
    "a tag that would run code": (
        "name: tiny",
        "name: !!python/object/apply:os.system [ls]",
        "1:1: name: explicit tag 'tag:yaml.org,2002:python/object/apply:os.system'; a manifest has no tags",
    ),
    "a key YAML reads otherwise": (
        "  int8:",
        "  8:",
        "17:3: variants.8: a key must be text, and YAML reads this as a number; quote it",
    ),
    "control character in a value": (
        "license: Apache-2.0",
        'license: "A\\x1b[2J"',
        "3:1: license: control character U+001B, remove it",
    ),
    "syntax": (
        "export: direct",
        "export: [direct",
        "10:10: not valid YAML: did not find expected ',' or ']' while parsing a flow sequence that starts on line 9",
    ),
    "tab": (
        "  hub: owner/tiny",
        "\thub: owner/tiny",
        "5:1: not valid YAML: found character that cannot start any token while scanning for the next token; "
        "indent with spaces, not tabs",
    ),
    "second document": (
        "export: direct",
        "export: direct\n---",
        "10:1: a second document starts here, a manifest is one document",
    ),
    "list as a key": ("export: direct", "? [a]\n: b", "9:3: a key must be text, not a list or a mapping"),
}


@pytest.mark.parametrize(("old", "new", "line"), TABLE.values(), ids=TABLE)
def test_a_mistake_is_told_at_its_place(mistakes, old, new, line):
    assert GOOD.count(old) == 1
    assert line in mistakes(GOOD.replace(old, new))


NO_FURTHER_WORD = set(TABLE) - {
    "unknown key at the top",  # and what it should have been is missing
    "misspelt kind of source",
    "unknown key in a known failure",
    "missing option of a task",  # and the other task's key is unknown
    "list as a key",
    "wrong variant name",
    "a key YAML reads otherwise",
}


@pytest.mark.parametrize("name", sorted(NO_FURTHER_WORD))
def test_one_mistake_makes_one_line(mistakes, name):
    old, new, line = TABLE[name]
    assert mistakes(GOOD.replace(old, new)) == [line]


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file(mistakes):
    text = GOOD
    for name in (
        "wrong size",
        "unknown exporter",
        "wrong name",
        "unknown check",
        "wrong axis",
        "unknown variant in a known failure",
    ):
        text = text.replace(*TABLE[name][:2])
    assert [line.split(":")[0] for line in mistakes(text)] == ["1", "9", "14", "20", "22", "26"]


def test_an_alias_is_refused(mistakes):
    lines = mistakes(GOOD.replace("name: tiny", "name: &n tiny").replace("license: Apache-2.0", "license: *n"))
    assert "3:1: license: alias '*n'; a manifest is flat, write the value out" in lines


def test_aliases_that_explode_are_read_in_no_time(mistakes):
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    assert len(mistakes(bomb)) > 60


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_nesting_without_end_is_refused(mistakes, opening):
    [line] = mistakes("a:\n  " + opening * 100_000)
    assert "nested more than 32 levels deep" in line or "a key must be text" in line or "not valid YAML" in line


def test_a_merge_key_is_an_unknown_key(mistakes):
    assert any(
        "source.<<: unknown key" in line for line in mistakes(GOOD.replace("  revision:", "  <<: {}\n  revision:"))
    )


def test_a_key_with_a_line_break_stays_on_one_line(mistakes):
    assert mistakes(GOOD + '"a\\nb": 1\n')[0].startswith("27:1: a\\nb: unknown key")


def test_a_value_of_any_length_is_cut(mistakes):
    [line] = mistakes(GOOD.replace("name: tiny", f"name: {'X' * 10_000}"))
    assert len(line) < 300


def test_a_kind_that_is_unknown_leaves_the_tasks_keys_unjudged(mistakes):
    [line] = mistakes(GOOD.replace("task: feature-extraction", "task: no-such-task"))
    assert line.startswith("2:1: task: unknown task 'no-such-task'")


def test_the_error_speaks_to_the_author_and_says_all_of_it(read):
    with pytest.raises(ManifestError) as caught:
        read("name: A\n")
    assert caught.value.exit_code == USAGE
    assert str(caught.value) == "\n".join(caught.value.mistakes)


# --- Files that are no manifest at all


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "1:1: the file is empty, expected a manifest"),
        (b"# only a comment\n", "1:1: the file is empty, expected a manifest"),
        (b"---\n", "1:1: the file is empty, expected a manifest"),
        (b"- a\n", "1:1: expected a mapping of keys at the top of the file"),
        (b"just text", "1:1: expected a mapping of keys at the top of the file"),
        (b"name: a\nx: \xff", "2:4: not UTF-8: invalid start byte 0xff"),
        ("name: tiny".encode("utf-16"), "1:1: not UTF-8: invalid start byte 0xff"),
        (b"name: a\x00b", "1:8: control character U+0000, remove it"),
        (b"name: a\nb: \x1b[2J", "2:4: control character U+001B, remove it"),
    ],
)
def test_what_is_no_manifest_is_told_in_one_line(mistakes, content, line):
    assert mistakes(content) == [line]


def test_a_file_over_one_mebibyte_is_refused(mistakes):
    assert mistakes(GOOD + "#" * 2**20) == [" is larger than 1 MiB, which no manifest needs"]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.yaml: no such file"):
        manifest.load(tmp_path / "none.yaml")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="is a folder, expected a file"):
        manifest.load(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ManifestError, match="is not a regular file"):
        manifest.load(tmp_path / "pipe.yaml")


def test_a_file_that_cannot_be_read_is_refused(monkeypatch, path):
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ManifestError, match="cannot be read: Permission denied"):
        manifest.load(path)


# --- Limits


@pytest.mark.parametrize("limit", ["mean: 0.99", "mean: 0.999", "drift: 0.05", "extra: 5", "worst: 1"])
def test_a_limit_no_looser_than_the_standard_needs_nothing(read, limit):
    assert read(GOOD.replace("mean: 0.997", limit)).variants["int8"].limits["parity"]


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("mean: 0.9", "mean: 0.9 is looser than the standard (>= 0.99)"),
        ("drift: 0.2", "drift: 0.2 is looser than the standard (<= 0.1)"),
        ("drift: null", "drift: null is looser than the standard (<= 0.1)"),
    ],
)
def test_a_looser_limit_needs_a_reason_and_a_day(mistakes, limit, told):
    [line] = mistakes(GOOD.replace("mean: 0.997", limit))
    assert line == f"22:16: variants.int8.limits.parity.{told} and needs 'because' and 'until' beside it"


def test_a_looser_limit_with_half_an_excuse_says_what_is_missing(mistakes):
    [line] = mistakes(GOOD.replace("mean: 0.997", "mean: 0.9, because: soon better"))
    assert line.endswith("and needs 'until' beside it")


def test_a_looser_limit_holds_through_its_last_day(read):
    found = read(GOOD.replace("mean: 0.997", "mean: 0.9, because: soon better, until: 2026-01-01"))
    assert found.variants["int8"].limits == {"parity": Parity(mean=0.9)}


def test_a_looser_limit_expires(mistakes):
    [line] = mistakes(GOOD.replace("mean: 0.997", "mean: 0.9, because: soon better, until: 2025-12-31"))
    assert line == "22:49: variants.int8.limits.parity.until: expired on 2025-12-31: take it out, or give a later day"


# --- find


def test_folders_yield_their_manifests_sorted_and_files_stand_for_themselves(tmp_path):
    for name in ("b.yaml", "a.yml", "deep/c.yaml", "b.lock", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = manifest.find([tmp_path, tmp_path / "b.yaml", tmp_path / "notes.md"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.yml", "b.yaml", "deep/c.yaml", "notes.md"]


def test_every_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ManifestError) as caught:
        manifest.find([tmp_path / "x", tmp_path, tmp_path / "y"])
    assert [line.rpartition("/")[2] for line in caught.value.mistakes] == [
        "x: no such file or folder",
        "y: no such file or folder",
    ]


# --- Whatever is in the file

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.sampled_from(["no", "23 MB", "direct", "int64[x]", "hub", "../..", {"direct": None}, [[]], {"a": {"b": []}}]),
)


def every_key(data: Any, trail: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield (*trail, key)
        if isinstance(value, dict | list):
            yield from every_key(value, (*trail, key))


KEYS = list(every_key(yaml.safe_load(GOOD)))


@given(text=st.text())
def test_arbitrary_text_gives_nothing_but_mistakes(path, text):
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ManifestError):
        manifest.load(path)


@given(content=st.binary())
def test_arbitrary_bytes_give_nothing_but_mistakes(path, content):
    path.write_bytes(content)
    with pytest.raises(ManifestError):
        manifest.load(path)


@given(text=st.text(alphabet="ab0:-?,[]{}#&*!|>'\"%@` \n\t\\x1e.~<=", max_size=60))
def test_text_made_of_yamls_own_signs_gives_nothing_but_mistakes(path, text):
    path.write_text(text)
    with pytest.raises(ManifestError):
        manifest.load(path)


@given(data=st.data(), position=st.integers(0, len(GOOD)), piece=st.text(alphabet="a:-[]{}&*!'\"\n\t #0", max_size=5))
def test_text_with_a_piece_put_in_loads_or_tells_every_mistake_at_a_place(path, data, position, piece):
    path.write_text(GOOD[:position] + piece + GOOD[position:])
    loads_or_tells_places(path)


@given(
    trails=st.lists(st.sampled_from(KEYS), min_size=1, max_size=3),
    change=st.sampled_from(["delete", "rename", "retype"]),
    odd=ODD,
    name=st.text(max_size=8),
)
def test_a_manifest_with_keys_changed_loads_or_tells_every_mistake_at_a_place(path, trails, change, odd, name):
    data = copy.deepcopy(yaml.safe_load(GOOD))
    for *above, key in trails:
        parent = data
        for step in above:
            parent = parent[step] if step in (parent if isinstance(parent, dict) else range(len(parent))) else {}
            parent = parent if isinstance(parent, dict | list) else {}
        if key not in (parent if isinstance(parent, dict) else range(len(parent))):
            continue
        if change == "retype":
            parent[key] = odd
        elif change == "rename" and isinstance(parent, dict):
            parent[name] = parent.pop(key)
        else:
            del parent[key]
    path.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False))
    loads_or_tells_places(path)


def loads_or_tells_places(path: Path) -> None:
    try:
        found = manifest.load(path)
    except ManifestError as error:
        for line in error.mistakes:
            place, _, problem = line.removeprefix(f"{path}:").partition(": ")
            number, column = place.split(":")
            assert int(number) >= 1, line
            assert int(column) >= 1, line
            assert problem
            assert "Input should" not in line
            assert line.isprintable()
    else:
        assert all(variant.budget is None or variant.budget > 0 for variant in found.variants.values())
        assert all(
            math.isfinite(limits.mean)
            for v in found.variants.values()
            for limits in v.limits.values()
            if isinstance(limits, Parity)
        )


# --- How it reads


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("tiny", "&a !!str 'x"), "", "\t", "a: b: c", "a: *x", "!!t {}"])
def test_without_the_c_parser_the_same_is_found(monkeypatch, path, text):
    def outcome() -> object:
        try:
            return manifest.load(path)
        except ManifestError as error:
            # The two parsers word a syntax error differently.
            return [line.partition(" not valid YAML")[0] for line in error.mistakes]

    path.write_text(text)
    fast = outcome()
    monkeypatch.setattr(yaml_marks, "_Loader", yaml.SafeLoader)
    assert outcome() == fast


def test_importing_it_brings_no_array_model_or_network_library():
    heavy = ("numpy", "onnx", "onnxruntime", "huggingface_hub", "requests", "httpx")
    code = f"import modelkit.manifest, sys; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
