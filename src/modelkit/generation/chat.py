"""Messages -> the prompt a model was taught, by the template that comes with it. Templates are strangers' code.

The dialect is transformers' (https://huggingface.co/docs/transformers/chat_templating_writing): Jinja with
`trim_blocks`, `lstrip_blocks`, `break` and `continue`, `raise_exception`, `strftime_now`, `{% generation %}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from modelkit import arguments
from modelkit.byte_level import ROLES, token_text
from modelkit.errors import InputError, StageError
from modelkit.json_objects import read_object

Message = Mapping[str, Any]

TODAY = date(2024, 7, 26)
"""The day on which a prompt is written unless a call names one: prompts must not change over night.
It is the day that Llama 3's template falls back to."""
LONGEST = 2**22
"""Characters that a template may write; more than any context holds."""


SPEAKERS = ("system", "developer", "user", "assistant", "tool", "ipython")
"""The roles of the chat templates in use; `ipython` is Llama 3.1's for what a tool answers."""


def checked(messages: Any) -> list[dict[str, Any]]:
    """`messages`, each a role and a content. Raises `InputError` that names the one that is not."""
    found = []
    for place, message in enumerate(arguments.several("messages", messages, "message")):
        name = f"messages[{place}]"
        if not isinstance(message, Mapping):
            raise arguments.wrong(name, "a mapping of role and content", message)
        if message.get("role") not in SPEAKERS:
            raise arguments.wrong(f"{name}['role']", f"one of {', '.join(SPEAKERS)}", message.get("role"))
        # Who only calls a tool says nothing.
        if not (message.get("content") is None and message.get("tool_calls")):
            arguments.text(f"{name}['content']", message.get("content"))
        found.append(dict(message))
    return found


@dataclass(frozen=True)
class ChatTemplate:
    """A model's template and the special tokens it may name."""

    text: str
    tokens: Mapping[str, str]
    where: Path

    @classmethod
    def of(cls, folder: Path) -> ChatTemplate | None:
        """From chat_template.jinja, else tokenizer_config.json; `None` when the model has none.

        Of several named templates the one called `default` is taken. Raises `StageError` for an unreadable file.
        """
        config = read_object(folder / "tokenizer_config.json")
        tokens = {name: text for name in ROLES if (text := token_text(config.get(name))) is not None}
        alone = folder / "chat_template.jinja"
        if alone.exists():
            return cls(_read(alone), tokens, alone)
        found = config.get("chat_template")
        if isinstance(found, list):
            found = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}.get("default")
        return cls(found, tokens, folder / "tokenizer_config.json") if isinstance(found, str) else None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, today: date = TODAY) -> str:
        """The prompt for a conversation, special tokens included.

        Raises `InputError` when the template does not get along with the messages, `StageError` when it does what a
        template must not.
        """
        if not messages:
            raise InputError("a chat of no messages has no answer", hint="give at least one message")
        try:
            template = _environment(today).from_string(self.text)
            pieces = template.generate(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.tokens,
            )
            return _joined(pieces)
        # A template can raise whatever Python can: it divides, it looks up, it recurses.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            kind, hint = _blame(error)
            raise kind(f"the chat template fails: {reason}", where=self.where, hint=hint) from error

    def refuse_broken(self) -> None:
        """Raise `StageError` for a template that does not parse."""
        try:
            _environment(TODAY).parse(self.text)
        except jinja2.TemplateError as error:
            raise StageError(f"the chat template does not parse: {error}", where=self.where.name) from error


class _Sandbox(ImmutableSandboxedEnvironment):
    """No attributes that lead out, and no operator by which one line fills the memory."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Numbers as always; repeated text and formatted text up to `LONGEST`."""
        sizes = [len(side) if isinstance(side, str | list | tuple) else side for side in (left, right)]
        texts = any(isinstance(side, str | list | tuple) for side in (left, right))
        if operator == "*" and texts and sizes[0] * sizes[1] > LONGEST:
            raise jinja2.exceptions.SecurityError("it repeats a text too often")
        if operator == "**" and not all(isinstance(side, int | float) and abs(side) < 1000 for side in sizes):
            raise jinja2.exceptions.SecurityError("it raises to too high a power")
        if operator == "%" and isinstance(left, str) and re.search(r"\d{4}|\*", left):
            raise jinja2.exceptions.SecurityError("it formats text too widely")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Any call but one that is given a number only a bomb has, such as `'a'.ljust(10**9)`."""
        if any(isinstance(value, int) and abs(value) > LONGEST for value in (*args, *kwargs.values())):
            raise jinja2.exceptions.SecurityError("it calls something with too large a number")
        return super().call(context, obj, *args, **kwargs)


class _Generation(Extension):
    """`{% generation %}`: marks the model's own words for training; here they are text like any other."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> Node:
        """The block's body, called where it stands."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Any) -> Any:
        return caller()


def _environment(today: date) -> _Sandbox:
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = today.strftime
    return made


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter would escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> str:
    raise jinja2.TemplateError(message)


def _joined(pieces: Iterable[str]) -> str:
    """All that a template writes. Raises `SecurityError` once it is too much."""
    made: list[str] = []
    left = LONGEST
    for piece in pieces:
        made.append(piece)
        left -= len(piece)
        if left < 0:
            raise jinja2.exceptions.SecurityError("it writes without end")
    return "".join(made)


def _blame(error: Exception) -> tuple[type[StageError | InputError], str]:
    """Who must act, and how: whatever is not plainly the template's fault may be that of the messages."""
    if isinstance(error, jinja2.exceptions.SecurityError):
        return StageError, "do not use this model before somebody has read its template"
    if isinstance(error, jinja2.TemplateSyntaxError):
        return StageError, f"line {error.lineno} of the template is wrong; fetch the source again"
    return InputError, "look at the roles and the order of the messages"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise StageError(f"{path.name} is no UTF-8 text ({error})", hint="fetch the source again") from error
