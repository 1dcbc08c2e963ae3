"""How a manifest and a call say what may be generated, and what the model's own files say about its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from modelkit import arguments, tokenizer
from modelkit.errors import InputError, ManifestError, StageError
from modelkit.json_objects import read_object

COMPANIONS = (*tokenizer.COMPANIONS, "chat_template.jinja", "generation_config.json", "config.json")
"""What a consumer of a model that writes text needs beside it; all but the tokenizer are copied when the source has
them."""


class Wishes(TypedDict, total=False):
    """What a call may say of the text it wants; `None` leaves it to the manifest."""

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    stop: Sequence[str] | None
    seed: int | None
    """The same seed draws the same text again; `None` draws another each time."""


def _stops(name: str, given: Any) -> tuple[str, ...]:
    return tuple(arguments.texts(name, given))


def _seed(name: str, given: Any) -> int:
    return arguments.whole(name, given, least=0)


READ: Mapping[str, Callable[[str, Any], Any]] = {
    "max_tokens": arguments.whole,
    "temperature": arguments.number,
    "top_k": arguments.whole,
    "top_p": arguments.number,
    "stop": _stops,
    "seed": _seed,
}
"""How each of `Wishes` is read, with the argument's name and what a call gives."""


@dataclass(frozen=True)
class Generation:
    """What generates text unless a call says otherwise.

    `temperature` 0 takes the likeliest token each time. `top_k` and `top_p` narrow the choice at other temperatures.
    Text ends before the first string of `stop`.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that leave no token to choose."""
        if self.max_tokens < 1:
            raise ManifestError(f"expected generation.max_tokens of at least 1, got {self.max_tokens}")
        if not 0 <= self.temperature <= 100:
            raise ManifestError(f"expected generation.temperature from 0 to 100, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ManifestError(f"expected generation.top_k of at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ManifestError(f"expected generation.top_p above 0 and up to 1, got {self.top_p}")
        if "" in self.stop:
            raise ManifestError("generation.stop holds an empty string, which would end every text at once")

    def with_(self, wishes: Wishes) -> Generation:
        """These settings with what a call gives instead. Raises `InputError` for what a manifest could not have."""
        arguments.refuse_unknown(wishes, READ)
        given = {name: READ[name](name, value) for name, value in wishes.items() if value is not None}
        given.pop("seed", None)
        try:
            return replace(self, **given)
        except ManifestError as error:
            raise InputError(error.message) from error


@dataclass(frozen=True)
class Facts:
    """What the files beside a model say about its texts."""

    config: dict[str, Any]
    generation: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Facts:
        """Raises `StageError` for a file that is no JSON object; either may be missing."""
        return cls(read_object(folder / "config.json"), read_object(folder / "generation_config.json"))

    def value(self, key: str) -> Any:
        """From generation_config.json, else from config.json; `None` when neither has it."""
        found = self.generation.get(key)
        return self.config.get(key) if found is None else found

    def ends(self) -> frozenset[int]:
        """The ids that end a text: `eos_token_id`, one or several. Raises `StageError` when there is none."""
        found = self.value("eos_token_id")
        ids = found if isinstance(found, list) else [found]
        if not ids or not all(type(number) is int for number in ids):
            raise StageError(
                f"eos_token_id is {json.dumps(found)}, so nothing would end a text",
                hint="add generation_config.json to `source.files`, or set eos_token_id in config.json",
            )
        return frozenset(ids)

    def positions(self) -> int | None:
        """How many tokens fit in the model, prompt and answer together; `None` where it sets no bound."""
        found = self.config.get("max_position_embeddings")
        return found if type(found) is int else None

    def start(self) -> int:
        """The id a decoder begins with. Raises `StageError` when no file names it."""
        found = self.value("decoder_start_token_id")
        if type(found) is not int:
            raise StageError(
                f"decoder_start_token_id is {json.dumps(found)}, so the decoder has nothing to begin with",
                hint="set it in config.json or generation_config.json",
            )
        return found

    def pad(self) -> int:
        """The id that fills short rows: `pad_token_id`, 0 where there is none: what it stands for is masked."""
        found = self.value("pad_token_id")
        return found if type(found) is int and found >= 0 else 0

    def prefix(self) -> str:
        """What this model was taught to read before a text it summarises; mostly nothing."""
        tasks = self.config.get("task_specific_params")
        found = tasks.get("summarization") if isinstance(tasks, dict) else None
        prefix = found.get("prefix") if isinstance(found, dict) else None
        return prefix if isinstance(prefix, str) else ""
