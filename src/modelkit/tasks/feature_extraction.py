"""`feature-extraction`: text -> one vector, pooled and normalised inside the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelkit.errors import ManifestError, StageError
from modelkit.tokenizer import pad_id, read_tokenizer, refuse_stranger
from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from modelkit.runtime import Session, Sessions

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "sentence_embedding"
FEWEST_TOKENS = 3
"""One token between the two special ones that encoders put around a text."""
CONSUMER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
"""What a consumer of the model needs beside it; all but the tokenizer are copied when the source has them."""


@dataclass(frozen=True)
class Text:
    """How text becomes a vector. `max_tokens` counts special tokens; longer text is cut."""

    max_tokens: int = 512
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True

    def __post_init__(self) -> None:
        """Refuse a length that leaves no token of the text itself."""
        if self.max_tokens < FEWEST_TOKENS:
            raise ManifestError(f"expected max_tokens of at least {FEWEST_TOKENS}, got {self.max_tokens}")


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
        self._session = session
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(options.text.max_tokens)
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """One row per text: float32[len(texts), width], unit length when the manifest normalises.

        Texts of like length share a batch, so that little is spent on padding; rows come back in the given order.
        Raises `TypeError` for a bare string, which would be embedded letter by letter.
        """
        import numpy as np  # noqa: PLC0415

        if isinstance(texts, str):
            raise TypeError("embed takes a list of texts; put the one text in brackets")
        if not texts:
            return np.empty((0, self.width), np.float32)
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        rows: list[Any] = [None] * len(ids)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for row, vector in zip(batch, self._run([ids[row] for row in batch]), strict=True):
                rows[row] = vector
        return np.stack(rows)

    outputs = embed
    """What the checks compare."""

    @property
    def width(self) -> int:
        """Length of one vector."""
        return int(self._session.outputs[OUTPUT][1][-1])

    def _run(self, batch: Sequence[Sequence[int]]) -> Any:
        import numpy as np  # noqa: PLC0415

        # A tokenizer without special tokens gives no id for empty text; a masked pad keeps the shape legal.
        longest = max(1, *map(len, batch))
        ids = np.full((len(batch), longest), pad_id(self._tokenizer), np.int64)
        mask = np.zeros((len(batch), longest), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self._session.run({name: feed[name] for name in self._session.inputs}, [OUTPUT])[0]


def open_(folder: Path, sessions: Sessions, options: Options) -> Embedder:
    """The model in `folder` as an object. Raises `StageError` when its tokenizer does not parse."""
    return Embedder(folder, sessions[WHOLE], options)


def verify(folder: Path, rows: int | None) -> None:
    """Refuse a tokenizer that cannot belong to an embedding table of `rows` rows (None: unknown)."""
    refuse_stranger(folder, rows)
