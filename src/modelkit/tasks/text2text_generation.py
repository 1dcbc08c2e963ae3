"""`text2text-generation`: a text in, another text out, by an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

from modelkit.errors import InputError
from modelkit.generation.settings import COMPANIONS, Facts, Generation, Wishes
from modelkit.tokenizer import read_tokenizer, refuse_bare, refuse_short, refuse_stranger

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from modelkit.runtime import Sessions

GIVES = ("logits", "text")
CONSUMER_FILES = COMPANIONS


@dataclass(frozen=True)
class Text:
    """`max_tokens` counts special tokens of the text that is read; longer text is cut."""

    max_tokens: int = 512

    def __post_init__(self) -> None:
        """Refuse a length that leaves no token before the one that ends a text."""
        refuse_short(self.max_tokens, 2)


@dataclass(frozen=True)
class Options:
    """The manifest keys this task adds."""

    text: Text = field(default_factory=Text)
    generation: Generation = field(default_factory=Generation)


class TextRewriter:
    """A loaded text2text-generation model, in one graph or in three."""

    def __init__(self, folder: Path, sessions: Sessions, options: Options) -> None:
        from modelkit.generation import caches  # noqa: PLC0415
        from modelkit.generation.answers import Answers  # noqa: PLC0415

        facts = Facts.of(folder)
        pad, start = facts.pad(), facts.start()
        caches.seq2seq(sessions, pad, start)
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(options.text.max_tokens)
        self._tokenizer.no_padding()
        self._options, self._positions, self._prefix = options, facts.positions(), facts.prefix()
        self._answers = Answers(lambda: caches.seq2seq(sessions, pad, start), self._tokenizer, facts.ends())
        self._width = caches.vocabulary(caches.scoring(sessions))

    @overload
    def generate(self, prompts: str, **wishes: Unpack[Wishes]) -> str: ...
    @overload
    def generate(self, prompts: list[str], **wishes: Unpack[Wishes]) -> list[str]: ...
    def generate(self, prompts: str | list[str], **wishes: Unpack[Wishes]) -> str | list[str]:
        """What the model makes of each text: text for a text, a list for a list; special tokens are not shown.

        `max_tokens`, `temperature`, `top_k`, `top_p` and `stop` replace the manifest's, `seed` makes sampling
        repeatable. Raises `InputError` for an empty text.
        """
        from modelkit.generation.answers import one_or_many  # noqa: PLC0415

        answered: str | list[str] = one_or_many(prompts, lambda texts: self._all(texts, wishes))
        return answered

    def stream(self, prompt: str, **wishes: Unpack[Wishes]) -> Iterator[str]:
        """The pieces of `generate`'s text, each as soon as it is certain. Raises as `generate` does, at once."""
        settings = self._options.generation.with_(wishes)
        return self._answers.stream(self._ids([prompt])[0], self._room(settings), settings, wishes.get("seed"))

    @overload
    def summarize(self, code: str, **wishes: Unpack[Wishes]) -> str: ...
    @overload
    def summarize(self, code: list[str], **wishes: Unpack[Wishes]) -> list[str]: ...
    def summarize(self, code: str | list[str], **wishes: Unpack[Wishes]) -> str | list[str]:
        """One line that says what each piece of code does.

        The model reads the code after the prefix that config.json names for summaries, if it names one.
        """
        from modelkit.generation import summaries  # noqa: PLC0415
        from modelkit.generation.answers import one_or_many  # noqa: PLC0415

        def lines(codes: list[str]) -> list[str]:
            if "" in codes:
                raise InputError("there is no code to summarize", hint="give at least one line")
            return [summaries.one_line(text) for text in self._all([self._prefix + code for code in codes], wishes)]

        summed: str | list[str] = one_or_many(code, lines)
        return summed

    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """What the checks compare: float32[len(texts), vocabulary], the scores of the first token of each answer."""
        refuse_bare(texts, "outputs")
        return self._answers.scores(self._ids(list(texts)), self._width, batch_size)

    def _all(self, texts: Sequence[str], wishes: Wishes) -> list[str]:
        settings = self._options.generation.with_(wishes)
        limits = [self._room(settings)] * len(texts)
        return self._answers.all(self._ids(texts), limits, settings, wishes.get("seed"))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        from modelkit.generation.answers import encoded  # noqa: PLC0415

        return encoded(self._tokenizer, texts)

    def _room(self, settings: Generation) -> int:
        """How many tokens an answer may have."""
        most = settings.max_tokens
        return most if self._positions is None else min(most, self._positions)


def open_(folder: Path, sessions: Sessions, options: Options) -> TextRewriter:
    """The model in `folder` as an object. Raises `StageError` when its files do not make a generator."""
    return TextRewriter(folder, sessions, options)


def verify(folder: Path, rows: int | None) -> None:
    """Refuse a tokenizer that cannot belong to an embedding table of `rows` rows (None: unknown), and a lack of ends.

    Raises `StageError` too when nothing says what the decoder begins with.
    """
    refuse_stranger(folder, rows)
    facts = Facts.of(folder)
    facts.ends(), facts.start()
