"""`feature-extraction`: text -> one vector, pooled and normalised inside the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from modelkit import arguments
from modelkit.errors import InputError, StageError
from modelkit.tokenizer import (
    COMPANIONS,
    in_batches,
    pad_id,
    padded,
    read_tokenizer,
    refuse_short,
    refuse_stranger,
)
from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydantic_core import CoreSchema

    from modelkit.runtime import Session, Sessions

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "sentence_embedding"
GIVES = ("vectors",)
CONSUMER_FILES = (*COMPANIONS, "config.json")
"""What a consumer of the model needs beside it; all but the tokenizer are copied when the source has them."""


class _InOrder:
    """What pydantic is to make of a mapping whose order counts; asked by it alone, so that it is loaded by it alone."""

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415

        return core_schema.no_info_plain_validator_function(_pairs)

    def __get_pydantic_json_schema__(self, *_: object) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {"type": "string"}}


def _pairs(found: object) -> tuple[tuple[str, str], ...]:
    """A mapping of texts as pairs; pairs as they are, because that is how a finished folder's card has them."""
    from pydantic_core import PydanticCustomError  # noqa: PLC0415

    if isinstance(found, dict):
        found = [*found.items()]
    if not isinstance(found, list) or not all(_is_pair(pair) for pair in found):
        raise PydanticCustomError("expected", "{what}", {"what": "a mapping such as {query: 'query: '}"})
    return tuple((kind, text) for kind, text in found)


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)


Prefixes: TypeAlias = Annotated[tuple[tuple[str, str], ...], _InOrder()]
"""Kind of text -> what stands before it. Pairs and no mapping: JSON that is sorted would lose which one is first."""


@dataclass(frozen=True)
class Text:
    """How text becomes a vector. `max_tokens` counts special tokens; longer text is cut.

    `prefixes` (`{query: "query: ", passage: "passage: "}`) are for models that were trained to be told what a text is
    for; the first one is that of a text of which nobody says it.
    """

    max_tokens: int = 512
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    prefixes: Prefixes = ()

    def __post_init__(self) -> None:
        """Refuse a length that leaves no token between the two special ones that encoders put around a text."""
        refuse_short(self.max_tokens, 3)


@dataclass(frozen=True)
class Options:
    """The manifest keys this task adds."""

    text: Text = field(default_factory=Text)


class Embedder:
    """A loaded feature-extraction model."""

    def __init__(self, folder: Path, session: Session, options: Options) -> None:
        unknown = sorted(set(session.inputs) - set(INPUTS))
        if unknown or OUTPUT not in session.outputs:
            raise StageError(
                f"the model takes {', '.join(session.inputs)} and gives {', '.join(session.outputs)}",
                where=folder,
                hint=f"feature-extraction feeds {', '.join(INPUTS)} and reads {OUTPUT}",
            )
        self._session, self._prefixes = session, dict(options.text.prefixes)
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(options.text.max_tokens)
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str], *, kind: str | None = None, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """One row per text: float32[len(texts), width], unit length when the manifest normalises.

        `kind` is what the texts are for, one of `kinds`; by default the first, where there are any. Texts of like
        length share a batch, of fewer than `batch_size` if they are long; rows come back in the given order.
        Raises `InputError` for a bare string, which would be embedded letter by letter, for what is no text, and for a
        kind that the model does not know.
        """
        import numpy as np  # noqa: PLC0415

        given, prefix = arguments.texts("texts", texts), self._prefix(kind)
        most = arguments.whole("batch_size", batch_size, least=1)
        if not given:
            return np.empty((0, self.width), np.float32)
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast([prefix + text for text in given])]
        rows: list[Any] = [None] * len(ids)
        for batch in in_batches([len(one) for one in ids], most):
            for row, vector in zip(batch, self._run([ids[row] for row in batch]), strict=True):
                rows[row] = vector
        return np.stack(rows)

    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """What the checks compare: `embed`, with the first prefix where there are any."""
        return self.embed(texts, batch_size=batch_size)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What a text can be for; empty for a model that makes no difference."""
        return tuple(self._prefixes)

    @property
    def width(self) -> int:
        """Length of one vector."""
        return int(self._session.outputs[OUTPUT][1][-1])

    def _prefix(self, kind: str | None) -> str:
        if kind is None:
            return next(iter(self._prefixes.values()), "")
        if arguments.text("kind", kind) not in self._prefixes:
            known = f"its kinds are {', '.join(self.kinds)}" if self.kinds else "all texts are alike to it"
            raise InputError(f"the model knows no texts of the kind '{kind}'", hint=known)
        return self._prefixes[kind]

    def _run(self, batch: Sequence[Sequence[int]]) -> Any:
        import numpy as np  # noqa: PLC0415

        ids, mask = padded(batch, pad_id(self._tokenizer))
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self._session.run({name: feed[name] for name in self._session.inputs}, [OUTPUT])[0]


def open_(folder: Path, sessions: Sessions, options: Options) -> Embedder:
    """The model in `folder` as an object. Raises `StageError` when its tokenizer does not parse."""
    return Embedder(folder, sessions[WHOLE], options)


def verify(folder: Path, rows: int | None) -> None:
    """Refuse a tokenizer that cannot belong to an embedding table of `rows` rows (None: unknown)."""
    refuse_stranger(folder, rows)
