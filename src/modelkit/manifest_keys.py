"""What each key of a manifest may hold: the shape pydantic validates, and that an editor's schema is made from.

`Any` marks the places where a shelf's own `Options` decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, NoReturn, TypeAlias

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from modelkit.kinds import did_you_mean

DEFAULT_FILES = (
    "config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "*_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "preprocessor_config.json",
)
"""The files of a model folder that some stage reads. Their older forms are not among them: a repository that has both
pytorch_model.bin and safetensors would be downloaded twice. A manifest whose source has no other form names them."""

DTYPES = (
    *("float32", "float16", "bfloat16", "float64", "bool", "string"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)
"""Element types by onnx's names, those that a graph's inputs and outputs have in practice."""

RUNTIMES = ("onnxruntime", "onnxruntime-web")
"""Where an artifact may have to run: the one installed here, and those that `kernels` knows a release of."""

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

# The counted digits keep a number of a million digits, which Python refuses to convert, from being one.
_NAME = r"[a-z0-9][a-z0-9._-]*"
_SIZE = rf"([0-9]{{1,15}}(?:\.[0-9]{{1,15}})?) ?({'|'.join(UNITS)})"
_TENSOR = r"([A-Za-z0-9_]+) ?\[([^\[\]]*)\]"
_AXIS = r"[A-Za-z_][A-Za-z0-9_]*|[1-9][0-9]{0,17}"
_LINE = r"\S[^\n]*"
_BRACES = r"\{(?:(\d{1,3})\.\.(\d{1,3})|([\w.]+(?:,[\w.]+)*))\}"


def parse_size(text: object) -> int:
    """`'13.3 MB'` -> bytes; MB is 10^6, MiB 2^20. Raises `ValueError` for anything but a positive number of bytes."""
    match = re.fullmatch(_SIZE, text.strip()) if isinstance(text, str) else None
    if match is None:
        _expected("a size such as '23 MB'")
    # Decimal, because 13.3 is not a float and the product must be a whole number.
    size = Decimal(match[1]) * UNITS[match[2]]
    if size < 1 or size != int(size):
        _expected("a whole number of bytes, at least one")
    return int(size)


def parse_tensor(text: object) -> tuple[str, tuple[int | str, ...]]:
    """`'int64[batch, 384]'` -> `('int64', ('batch', 384))`; `float32[]` is a scalar. Raises `ValueError`."""
    match = re.fullmatch(_TENSOR, text.strip()) if isinstance(text, str) else None
    if match is None:
        _expected("a tensor such as 'int64[batch, sequence]'")
    dtype, axes = match[1], [axis.strip() for axis in match[2].split(",")] if match[2].strip() else []
    if dtype not in DTYPES:
        raise ValueError(f"unknown element type '{dtype}'{did_you_mean(dtype, DTYPES)}")
    if not all(re.fullmatch(_AXIS, axis) for axis in axes):
        _expected("each axis to be a name or a whole number above 0")
    return dtype, tuple(int(axis) if axis.isdecimal() else axis for axis in axes)


def expand(name: str) -> list[str]:
    """`past.{0..1}.{key,value}` -> `past.0.key`, `past.0.value`, `past.1.key`, `past.1.value`, as a shell does.

    Raises `ValueError` for braces that hold neither a rising range of up to three digits nor a list.
    """
    match = re.search(_BRACES, name)
    if match is None:
        if {*"{}"} & set(name):
            _expected("braces such as {0..11} or {key,value}")
        return [name]
    words = match[3].split(",") if match[3] else [str(n) for n in range(int(match[1]), int(match[2]) + 1)]
    if not words:
        _expected("a range that rises, such as {0..11}")
    return [name[: match.start()] + word + rest for word in words for rest in expand(name[match.end() :])]


def _tensor_name(text: str) -> str:
    expand(_line(text))
    return _line(text)


def _expected(what: str) -> NoReturn:
    """A mistake to which the explanation adds what stands there instead."""
    raise PydanticCustomError("expected", "{what}", {"what": what})


def _day(text: object) -> date:
    if not isinstance(text, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        _expected("a day such as 2027-03-01")
    try:
        return date.fromisoformat(text)
    except ValueError:
        _expected("a day that exists")


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        _expected("a name of a-z, 0-9, '.', '_' and '-' that starts with a letter or a digit")
    return text


def _line(text: str) -> str:
    if not re.fullmatch(_LINE, text.strip()):
        _expected("one line of text")
    return text.strip()


def _pattern(text: str) -> str:
    if not text or "\\" in text or text.startswith("/") or ".." in PurePosixPath(text).parts:
        _expected("a pattern inside the source, such as '*.safetensors'")
    return text


def _runtime(text: str) -> str:
    if text not in RUNTIMES:
        raise ValueError(f"unknown runtime '{text}'{did_you_mean(text, RUNTIMES)}")
    return text


def _some(entries: tuple[str, ...]) -> tuple[str, ...]:
    # Not `min_length`: a list whose only entry is wrong would be called empty as well.
    if not entries:
        _expected("at least one entry")
    return entries


def _schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern})$"})


Name: TypeAlias = Annotated[str, AfterValidator(_name), _schema(_NAME)]
Line: TypeAlias = Annotated[str, AfterValidator(_line), _schema(_LINE)]
TensorName: TypeAlias = Annotated[str, AfterValidator(_tensor_name), _schema(_LINE)]
Pattern: TypeAlias = Annotated[str, AfterValidator(_pattern)]
Runtime: TypeAlias = Annotated[str, AfterValidator(_runtime), WithJsonSchema({"enum": list(RUNTIMES)})]
Size: TypeAlias = Annotated[int, PlainValidator(parse_size), _schema(_SIZE)]
Tensor: TypeAlias = Annotated[tuple[str, tuple[int | str, ...]], PlainValidator(parse_tensor), _schema(_TENSOR)]
Day: TypeAlias = Annotated[date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
# A key that may be left out but not left empty: its validator sees null and refuses it, its default is not validated.
MaybeName: TypeAlias = Annotated[str | None, PlainValidator(lambda text: _name(_text(text))), _schema(_NAME)]
MaybeLine: TypeAlias = Annotated[str | None, PlainValidator(lambda text: _line(_text(text))), _schema(_LINE)]


def _text(text: object) -> str:
    if not isinstance(text, str):
        _expected("text")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKeys:
    """Keys of `source` beside the kind's own."""

    mirrors: tuple[Any, ...] = ()
    """Other places that yield the same bytes, tried in order; content is checked, never trusted."""
    files: tuple[Pattern, ...] = DEFAULT_FILES
    """Patterns of the wanted files; `*` stays inside one folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureKeys:
    """What one graph takes and gives, in order, as `int64[batch, sequence]`.

    Names expand as in a shell: `past_key_values.{0..27}.{key,value}` stands for 56 tensors.
    """

    inputs: Annotated[dict[TensorName, Tensor], Field(min_length=1)]
    """Graph input -> element type and shape; a named axis may have any length."""
    outputs: Annotated[dict[TensorName, Tensor], Field(min_length=1)]
    """Graph output -> element type and shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantKeys:
    """One artifact to be made from the model."""

    scheme: Any = None
    """How the graph is made smaller; by default it is not (`fp32`)."""
    channel: MaybeName = None
    """Where the artifact is offered; by default `prod` for a variant named int4..., else `dev`."""
    budget: Annotated[int | None, PlainValidator(parse_size), _schema(_SIZE)] = None
    """Largest allowed total of the finished model files, such as `23 MB` (10^6 bytes) or `22 MiB` (2^20)."""
    limits: dict[str, Any] = field(default_factory=dict)
    """Check -> its limits, where they differ from the standard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcuseKeys:
    """What a limit looser than the standard needs beside it."""

    because: MaybeLine = None
    """One sentence; needed when a limit is looser than the standard."""
    until: Annotated[date | None, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})] = None
    """Last day on which the looser limit holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFailureKeys:
    """A failing check that is excused until a day; if it passes, that fails."""

    variant: str
    """A name from `variants`."""
    check: str
    """The kind of the check that fails."""
    because: Line
    """One sentence."""
    until: Day
    """Last day on which the failure is excused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestKeys:
    """One model, as its author declares it."""

    name: Name
    """Name of the model, by which it is built and released."""
    task: str
    """What the model is for, by Hugging Face task name."""
    license: Line
    """SPDX identifier of the licence of the weights."""
    source: Any
    """Where the weights come from."""
    export: Any
    """How the weights become a graph."""
    signature: Any
    """What the graph takes and gives; for a model of several parts (`text_model`, `vision_model`) by part."""
    variants: Annotated[Mapping[Name, VariantKeys], Field(min_length=1)]
    """The artifacts to be made, by name."""
    runtimes: Annotated[tuple[Runtime, ...], AfterValidator(_some), Field(json_schema_extra={"minItems": 1})] = (
        "onnxruntime",
    )
    """Where the artifacts have to run: `onnxruntime` is the one installed here."""
    known_failures: tuple[KnownFailureKeys, ...] = ()
    """Checks that are known to fail, for now."""
