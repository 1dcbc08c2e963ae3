"""`text-generation`: a text, or a chat, and how a model that reads from left to right goes on from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from modelkit import arguments
from modelkit.errors import InputError, StageError
from modelkit.generation.settings import COMPANIONS, Facts, Generation, Wishes
from modelkit.tokenizer import read_tokenizer, refuse_short, refuse_stranger
from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    from datetime import date

    import numpy as np
    import numpy.typing as npt

    from modelkit.generation.answers import Written
    from modelkit.runtime import Session, Sessions

GIVES = ("logits", "text")
CONSUMER_FILES = COMPANIONS


@dataclass(frozen=True)
class Text:
    """`max_tokens`: the longest prompt; a longer one is refused, for its end is what an answer hangs on."""

    max_tokens: int = 2048

    def __post_init__(self) -> None:
        """Refuse a length that leaves no token of the text itself."""
        refuse_short(self.max_tokens, 1)


@dataclass(frozen=True)
class Options:
    """The manifest keys this task adds."""

    text: Text = field(default_factory=Text)
    generation: Generation = field(default_factory=Generation)


class TextGenerator:
    """A loaded text-generation model."""

    def __init__(self, folder: Path, session: Session, options: Options) -> None:
        from modelkit.generation import caches, chat  # noqa: PLC0415
        from modelkit.generation.answers import Answers  # noqa: PLC0415

        facts = Facts.of(folder)
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._options, self._positions = options, facts.positions()
        caches.Causal(session, facts.pad())
        self._answers = Answers(lambda: caches.Causal(session, facts.pad()), self._tokenizer, facts.ends())
        self._width = caches.vocabulary(session)
        self._template = chat.ChatTemplate.of(folder)

    @overload
    def generate(self, prompts: str, **wishes: Unpack[Wishes]) -> str: ...
    @overload
    def generate(self, prompts: list[str], **wishes: Unpack[Wishes]) -> list[str]: ...
    def generate(self, prompts: str | list[str], **wishes: Unpack[Wishes]) -> str | list[str]:
        """How each prompt goes on: text for a text, a list for a list; special tokens are not shown.

        `max_tokens`, `temperature`, `top_k`, `top_p` and `stop` replace the manifest's, `seed` makes sampling
        repeatable. Raises `InputError` for a prompt that is empty or longer than the context.
        """
        from modelkit.generation.answers import one_or_many  # noqa: PLC0415

        answered: str | list[str] = one_or_many("prompts", prompts, lambda texts: self._all(self._ids(texts), wishes))
        return answered

    def stream(self, prompt: str, **wishes: Unpack[Wishes]) -> Iterator[str]:
        """The pieces of `generate`'s text, each as soon as it is certain. Raises as `generate` does, at once."""
        return self._stream(self._ids([arguments.text("prompt", prompt)])[0], wishes)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, today: date | None = None, **wishes: Unpack[Wishes]
    ) -> str:
        """The model's answer to messages of `role` and `content`.

        `today` is the day some templates tell the model, by default always the same. Raises `StageError` when the
        model has no chat template, `InputError` for what are no messages, and when the template refuses them.
        """
        return self._all([self._chat_ids(messages, today)], wishes)[0]

    def stream_chat(
        self, messages: Sequence[Mapping[str, Any]], *, today: date | None = None, **wishes: Unpack[Wishes]
    ) -> Iterator[str]:
        """The pieces of `chat`'s answer, each as soon as it is certain."""
        return self._stream(self._chat_ids(messages, today), wishes)

    @overload
    def summarize(self, code: str, **wishes: Unpack[Wishes]) -> str: ...
    @overload
    def summarize(self, code: list[str], **wishes: Unpack[Wishes]) -> list[str]: ...
    def summarize(self, code: str | list[str], **wishes: Unpack[Wishes]) -> str | list[str]:
        """One line that says what each piece of code does; asked in a chat when the model knows chats."""
        from modelkit.generation import summaries  # noqa: PLC0415
        from modelkit.generation.answers import one_or_many  # noqa: PLC0415

        def lines(codes: list[str]) -> list[str]:
            return [summaries.one_line(one.text) for one in self.write_summaries(codes, **wishes)]

        summed: str | list[str] = one_or_many("code", code, lines)
        return summed

    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> npt.NDArray[np.float32]:
        """What the checks compare: float32[len(texts), vocabulary], the scores of the token after each text."""
        return self._answers.scores(self._ids(texts), self._width, arguments.whole("batch_size", batch_size, least=1))

    def write(self, texts: Sequence[str], **wishes: Unpack[Wishes]) -> list[Written]:
        """What `generate` gives, in tokens: those of each text, and those of its answer with the one that ended it."""
        return self._written(self._ids(texts), wishes)

    def passages(self, texts: Sequence[str]) -> list[Written]:
        """What the scores of two models are compared along: the first token of each text, and all its others."""
        from modelkit.generation.answers import Written  # noqa: PLC0415

        return [Written(ids[:1], ids[1:], text) for ids, text in zip(self._ids(texts), texts, strict=True)]

    def scores(self, written: Iterable[Written], *, cached: bool = False) -> Iterator[npt.NDArray[np.float32]]:
        """For each answer float32[its tokens, vocabulary]: what this model gives each token after all before it.

        All tokens of an answer are read at once, or `cached`, one by one as `write` does. The next answer is read
        when it is asked for.
        """
        return self._answers.forced(written, cached)

    def write_summaries(self, codes: Sequence[str], **wishes: Unpack[Wishes]) -> list[Written]:
        """What `summarize` makes its lines of, in tokens."""
        from modelkit.generation import summaries  # noqa: PLC0415

        if "" in codes:
            raise InputError("there is no code to summarize", hint="give at least one line")
        if self._template:
            return self._written([self._chat_ids(summaries.message(code), None) for code in codes], wishes)
        stop = arguments.texts("stop", wishes.get("stop") or ())
        line: Wishes = {**wishes, "stop": (*stop, *summaries.STOP)}
        return self._written(self._ids([summaries.prompt(code) for code in codes]), line)

    def _all(self, prompts: list[list[int]], wishes: Wishes) -> list[str]:
        return [one.text for one in self._written(prompts, wishes)]

    def _written(self, prompts: list[list[int]], wishes: Wishes) -> list[Written]:
        settings = self._options.generation.with_(wishes)
        return self._answers.all(prompts, [self._room(ids, settings) for ids in prompts], settings, wishes.get("seed"))

    def _stream(self, ids: list[int], wishes: Wishes) -> Iterator[str]:
        settings = self._options.generation.with_(wishes)
        return self._answers.stream(ids, self._room(ids, settings), settings, wishes.get("seed"))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        from modelkit.generation.answers import encoded  # noqa: PLC0415

        return [self._fitting(ids) for ids in encoded(self._tokenizer, texts)]

    def _chat_ids(self, messages: Sequence[Mapping[str, Any]], today: date | None) -> list[int]:
        from modelkit.generation import chat  # noqa: PLC0415
        from modelkit.generation.answers import encoded  # noqa: PLC0415

        if self._template is None:
            raise StageError(
                "the model has no chat template", hint="use generate, or add chat_template.jinja to `source.files`"
            )
        prompt = self._template.render(chat.checked(messages), today=_day(today))
        # The template has written the special tokens already.
        return self._fitting(encoded(self._tokenizer, [prompt], special=False)[0])

    def _fitting(self, ids: list[int]) -> list[int]:
        from modelkit.generation.answers import too_long  # noqa: PLC0415

        longest = self._options.text.max_tokens
        if self._positions is not None:
            longest = min(longest, self._positions - 1)
        if len(ids) > longest:
            bound = self._options.text.max_tokens > longest
            raise too_long(len(ids), longest, "shorten it" if bound else "shorten it, or raise text.max_tokens")
        return ids

    def _room(self, ids: Sequence[int], settings: Generation) -> int:
        """How many tokens the answer may have."""
        most = settings.max_tokens
        return most if self._positions is None else min(most, self._positions - len(ids))


def _day(today: date | None) -> date:
    from modelkit.generation.chat import TODAY  # noqa: PLC0415

    return TODAY if today is None else arguments.day("today", today)


def open_(folder: Path, sessions: Sessions, options: Options) -> TextGenerator:
    """The model in `folder` as an object. Raises `StageError` when its files do not make a generator."""
    return TextGenerator(folder, sessions[WHOLE], options)


def verify(folder: Path, rows: int | None) -> None:
    """Refuse a tokenizer that cannot belong to an embedding table of `rows` rows (None: unknown), and a lack of ends.

    Raises `StageError` too for a chat template that does not parse.
    """
    from modelkit.generation.chat import ChatTemplate  # noqa: PLC0415

    refuse_stranger(folder, rows)
    Facts.of(folder).ends()
    if template := ChatTemplate.of(folder):
        template.refuse_broken()
