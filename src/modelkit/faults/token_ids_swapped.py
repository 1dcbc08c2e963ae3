"""Two tokens exchanged their ids in the tokenizer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from modelkit.json_objects import read_object

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

WHERE = "folder"
SPACES = "\u0120\u2581"
"""What stands for a space in front of a word: in byte-level vocabularies, and in those of Unigram."""


def spoil(folder: Path, draw: Random) -> str | None:
    """Exchange the ids of two words of letters."""
    path = folder / "tokenizer.json"
    tokenizer = read_object(path)
    vocabulary = tokenizer.get("model", {}).get("vocab")
    if not vocabulary:
        return None
    listed = isinstance(vocabulary, list)  # of Unigram: pairs of token and score, whose place is the id
    tokens = [entry[0] for entry in vocabulary] if listed else [*vocabulary]
    words = [token for token in tokens if len(word := token.strip(SPACES)) > 1 and word.isalpha()]
    if len(words) < 2:
        return None
    one, other = draw.sample(words, 2)
    if listed:
        first, second = tokens.index(one), tokens.index(other)
        vocabulary[first][0], vocabulary[second][0] = other, one
    else:
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return f"'{one}' and '{other}' have exchanged ids"
