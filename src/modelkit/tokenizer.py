"""tokenizer.json: reading it, and whether it belongs to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.errors import StageError

if TYPE_CHECKING:
    import tokenizers


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
