"""tokenizer.json: reading it, and whether it belongs to a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.errors import StageError

if TYPE_CHECKING:
    import tokenizers

MOST_TOKENS = 8192
"""In one batch, padding included: 32 texts of 256 tokens. Attention takes memory by the square of a text's length."""


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Parse tokenizer.json. Raises `StageError` when it is missing or does not parse."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    if not path.exists():
        raise StageError("no tokenizer.json in the source", hint="add it to `source.files`")
    # The library raises a bare Exception for every kind of broken file.
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise StageError(
            f"tokenizer.json does not parse ({error})", hint="fetch the source again, or export it with `tokenizers`"
        ) from error


def in_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions in `lengths`, shortest first: texts of like length share a batch, so that little is spent on padding.

    A batch has at most `batch_size` texts and, as long as it has two, at most `MOST_TOKENS` padded tokens.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * lengths[row] > MOST_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def pad_id(tokenizer: tokenizers.Tokenizer) -> int:
    """The id of the padding token, 0 where there is none: what it stands for is masked."""
    for token in ("[PAD]", "<pad>"):
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    return 0


def refuse_stranger(folder: Path, rows: int | None) -> None:
    """Raise `StageError` for a tokenizer that cannot belong to an embedding table of `rows` rows (None: unknown)."""
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if rows is not None and largest >= rows:
        raise StageError(
            f"tokenizer.json knows ids up to {largest}, the embedding table ends at {rows - 1}",
            hint="the tokenizer and the weights do not belong together",
        )
