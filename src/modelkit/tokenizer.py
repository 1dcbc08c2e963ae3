"""tokenizer.json: reading it, making it of older files, and whether it belongs to a model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit import byte_level
from modelkit.errors import ManifestError, MissingFileError, StageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import tokenizers

    Ids = npt.NDArray[np.int64]

MOST_TOKENS = 8192
"""In one batch, padding included: 32 texts of 256 tokens. Attention takes memory by the square of a text's length."""
FILE = "tokenizer.json"
COMPANIONS = (FILE, byte_level.CONFIG, byte_level.SPECIAL)
"""What a consumer needs to read texts as the model does; all but the first are copied when the source has them."""
INCOMPLETE = "the folder is incomplete: build it again"
OTHER_FORMS = ("*.model", "vocab.txt", byte_level.VOCABULARY, byte_level.MERGES)
"""Of tokenizers whose fast form another tool has to make."""


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Parse the tokenizer.json of a finished folder. Raises `StageError` when it is missing or does not parse."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    if not path.exists():
        raise StageError(f"{path.name} is missing", where=path.parent, hint=INCOMPLETE)
    # The library raises a bare Exception for every kind of broken file.
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise StageError(
            f"tokenizer.json does not parse ({error})", hint="fetch the source again, or export it with `tokenizers`"
        ) from error


def refuse_short(max_tokens: int, fewest: int) -> None:
    """Raise `ManifestError` when a manifest allows texts of fewer than `fewest` tokens, special ones included."""
    if max_tokens < fewest:
        raise ManifestError(f"expected max_tokens of at least {fewest}, got {max_tokens}")


def in_batches(lengths: Sequence[int], batch_size: int, most_tokens: float = MOST_TOKENS) -> Iterator[list[int]]:
    """Positions in `lengths`, shortest first: texts of like length share a batch, so that little is spent on padding.

    A batch has at most `batch_size` texts and, as long as it has two, at most `most_tokens` padded tokens.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * lengths[row] > most_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def padded(batch: Sequence[Sequence[int]], pad: int, *, left: bool = False) -> tuple[Ids, Ids]:
    """Ids side by side, `pad` behind each text (`left`: before it), and their mask: two int64[batch, longest].

    The mask is 1 where a text is and 0 where a pad is. A batch of texts without a token is one token wide.
    """
    import numpy as np  # noqa: PLC0415

    # A tokenizer without special tokens gives no id for empty text; a masked pad keeps the shape legal.
    longest = max(1, *map(len, batch))
    ids = np.full((len(batch), longest), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(batch):
        where = slice(longest - len(tokens), longest) if left else slice(0, len(tokens))
        ids[row, where], mask[row, where] = tokens, 1
    return ids, mask


def pad_id(tokenizer: tokenizers.Tokenizer) -> int:
    """The id of the padding token, 0 where there is none: what it stands for is masked."""
    for token in ("[PAD]", "<pad>"):
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    return 0


def write_tokenizer(source: Path, into: Path) -> None:
    """Write tokenizer.json to the folder `into`: the source's own, byte for byte, or one made of its older files.

    Writes nothing where the source has neither.
    """
    if (source / FILE).exists():
        shutil.copyfile(source / FILE, into / FILE)
    elif byte_level.is_there(source):
        (into / FILE).write_bytes(byte_level.tokenizer_json(source).encode())


def refuse_stranger(folder: Path, rows: int | None) -> None:
    """Raise `StageError` for a tokenizer that cannot belong to an embedding table of `rows` rows (None: unknown).

    `folder` is a source: it may have vocab.json and merges.txt instead of tokenizer.json.
    """
    tokenizer = of_source(folder)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if rows is not None and largest >= rows:
        raise StageError(
            f"{FILE} knows ids up to {largest}, the embedding table ends at {rows - 1}",
            hint="the tokenizer and the weights do not belong together",
        )


def of_source(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a source, whichever files say it. Raises `StageError` when there is none, or it is damaged."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    if (folder / FILE).exists():
        return read_tokenizer(folder / FILE)
    if not byte_level.is_there(folder):
        raise _missing(folder)
    # The library raises a bare Exception here, too.
    try:
        return Tokenizer.from_str(byte_level.tokenizer_json(folder))
    except StageError:
        raise
    except Exception as error:
        raise StageError(
            f"{byte_level.VOCABULARY} and {byte_level.MERGES} make no tokenizer ({error})",
            hint="fetch the source again",
        ) from error


def _missing(folder: Path) -> MissingFileError:
    """What to do depends on what the source has instead."""
    others = sorted(path.name for pattern in OTHER_FORMS for path in folder.glob(pattern))
    if not others:
        return MissingFileError(FILE, make=byte_level.MAKE_ONE)
    if others == [byte_level.VOCABULARY]:
        hint = f"add {byte_level.MERGES} to `source.files`, which belongs to it"
    else:
        hint = byte_level.MAKE_ONE
    return MissingFileError(FILE, besides=", ".join(others), hint=hint, make=None)
