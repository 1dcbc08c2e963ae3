"""`text2text-generation`: a text in, another text out, by an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

from modelkit import arguments
from modelkit.errors import InputError
from modelkit.generation.settings import COMPANIONS, Facts, Generation, Wishes
from modelkit.tokenizer import read_tokenizer, refuse_short, refuse_stranger

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from modelkit.generation.answers import Written
    from modelkit.runtime import Sessions

GIVES = ("logits", "text")
CONSUMER_FILES = COMPANIONS
PASSAGE = 32
"""Tokens of an answer along which scores are compared: a summary's length, and enough for a figure per token."""


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
        repeatable. Raises `InputError` for a text that is empty or longer than `text.max_tokens`.
        """
        from modelkit.generation.answers import one_or_many  # noqa: PLC0415

        answered: str | list[str] = one_or_many("prompts", prompts, lambda texts: self._all(texts, wishes))
        return answered

    def stream(self, prompt: str, **wishes: Unpack[Wishes]) -> Iterator[str]:
        """The pieces of `generate`'s text, each as soon as it is certain. Raises as `generate` does, at once."""
        settings = self._options.generation.with_(wishes)
        texts = self._whole([arguments.text("prompt", prompt)])
        return self._answers.stream(self._ids(texts)[0], self._room(settings), settings, wishes.get("seed"))

    @overload
    def summarize(self, code: str, **wishes: Unpack[Wishes]) -> str: ...
    @overload
    def summarize(self, code: list[str], **wishes: Unpack[Wishes]) -> list[str]: ...
    def summarize(self, code: str | list[str], **wishes: Unpack[Wishes]) -> str | list[str]:
        """One line that says what each piece of code does; of code beyond `text.max_tokens` the beginning is read.

        The model reads the code after the prefix that config.json names for summaries, if it names one.
        """
        from modelkit.generation import summaries  # noqa: PLC0415
        from modelkit.generation.answers import one_or_many  # noqa: PLC0415

        def lines(codes: list[str]) -> list[str]:
            return [summaries.one_line(one.text) for one in self.write_summaries(codes, **wishes)]

        summed: str | list[str] = one_or_many("code", code, lines)
        return summed

    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """What the checks compare: float32[len(texts), vocabulary], the scores of the first token of each answer."""
        return self._answers.scores(self._ids(texts), self._width, arguments.whole("batch_size", batch_size, least=1))

    def write(self, texts: Sequence[str], **wishes: Unpack[Wishes]) -> list[Written]:
        """What `generate` gives, in tokens: those of each text, and those of its answer with the one that ended it.

        Of a text longer than `text.max_tokens` the beginning is read: the checks answer any corpus.
        """
        return self._written(texts, wishes)

    def passages(self, texts: Sequence[str]) -> list[Written]:
        """What the scores of two models are compared along: each text, and what this model answers at its surest."""
        return self.write(texts, max_tokens=PASSAGE, temperature=0)

    def scores(self, written: Iterable[Written], *, cached: bool = False) -> Iterator[npt.NDArray[np.float32]]:
        """For each answer float32[its tokens, vocabulary]: what this model gives each token after all before it.

        All tokens of an answer are read at once, or `cached`, one by one as `write` does. The next answer is read
        when it is asked for.
        """
        return self._answers.forced(written, cached)

    def write_summaries(self, codes: Sequence[str], **wishes: Unpack[Wishes]) -> list[Written]:
        """What `summarize` makes its lines of, in tokens."""
        if "" in codes:
            raise InputError("there is no code to summarize", hint="give at least one line")
        return self._written([self._prefix + code for code in codes], wishes)

    def _all(self, texts: list[str], wishes: Wishes) -> list[str]:
        return [one.text for one in self._written(self._whole(texts), wishes)]

    def _whole(self, texts: list[str]) -> list[str]:
        """`texts`, none of which would be cut; what an answer hangs on may stand at the end."""
        from modelkit.generation.answers import too_long  # noqa: PLC0415

        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        for encoding in self._tokenizer.encode_batch_fast(texts):
            if more := sum(len(part.ids) - special for part in encoding.overflowing):
                longest = self._options.text.max_tokens
                raise too_long(longest + more, longest, "shorten it, or raise text.max_tokens")
        return texts

    def _written(self, texts: Sequence[str], wishes: Wishes) -> list[Written]:
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
