"""The ids that the files beside a model name are those of its tokenizer, and have a row in its embedding table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import CheckError, StageError
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    Claims = dict[str, dict[str, Any]]
    """File -> key -> what it says: an id or a list of ids, a token or a list of tokens, a size."""

VERSION = 1
PROMISE = "the special tokens of all files are the source's, agree with the tokenizer, and have a row in the table"
ID_FILES = ("config.json", "generation_config.json")
TOKEN_FILES = ("tokenizer_config.json", "special_tokens_map.json")
LISTED, MORE, SIZE = "added_tokens_decoder", "additional_special_tokens", "vocab_size"
TEXT_CONFIGS = ("text_config_dict", "text_config")
"""Where a model of several parts keeps the settings of its text encoder; the first that is there counts."""


@dataclass(frozen=True)
class Options:
    """No limits: two ids are the same or they are not."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Read what each file says, compare it with the source's and with the tokenizer, and try ids on the graph.

    What the source's own files contradict each other in is told, and fails only where a user would meet it. Skipped
    for a model without a tokenizer. Raises `CheckError` when the source's own files cannot be read.
    """
    from modelkit.tokenizer import FILE, read_tokenizer  # noqa: PLC0415

    folder = subject.artifact.folder
    theirs = _source(subject.source.folder)
    if theirs is None:
        return Verdict("special-tokens", "skipped", "the source has no tokenizer to hold other files against")
    try:
        tokenizer, claims = read_tokenizer(folder / FILE), claimed(folder)
        table = _Table(subject, tokenizer)
        used = [*_used(subject, tokenizer, claims, table.rows(claims))]
    except StageError as error:
        return Verdict("special-tokens", "failed", f"the finished folder cannot be used: {error.message}")
    source, of_source = theirs
    inherited, own = [*contradictions(of_source, source)], [*contradictions(claims, tokenizer)]
    problems = [
        *_changed(claims, of_source, _consumed(subject)),
        *(line for line in own if line not in inherited),
        *table.problems(claims),
        *used,
    ]
    told = [line for line in own if line in inherited]
    measured = {"claims": sum(map(len, claims.values())), "largest_id": table.largest, "rows": table.rows(claims),
                "inherited": told}  # fmt: skip
    if problems:
        worst = tuple({"problem": line} for line in problems[:5])
        return Verdict("special-tokens", "failed", "; ".join(problems[:3]), measured, worst=worst)
    sentence = f"{measured['claims']} claims of {len(claims)} files hold"
    more = f"; the source contradicts itself: {'; '.join(told)}" if told else ""
    return Verdict("special-tokens", "passed", sentence + more, measured)


def _source(folder: Path) -> tuple[Tokenizer, Claims] | None:
    from modelkit import byte_level  # noqa: PLC0415
    from modelkit.tokenizer import FILE, of_source  # noqa: PLC0415

    if not (folder / FILE).exists() and not byte_level.is_there(folder):
        return None
    try:
        return of_source(folder), claimed(folder)
    except StageError as error:
        raise CheckError(f"the source's own files cannot be read: {error.message}", hint=error.hint) from error


def _consumed(subject: Subject) -> tuple[str, ...]:
    from modelkit import kinds  # noqa: PLC0415

    files: tuple[str, ...] = kinds.load("tasks", subject.manifest.task.kind).CONSUMER_FILES
    return files


def claimed(folder: Path) -> Claims:
    """What the files of `folder` say about tokens and ids; a file that says nothing of them has no entry."""
    from modelkit.byte_level import ROLES  # noqa: PLC0415
    from modelkit.json_objects import read_object  # noqa: PLC0415

    found: Claims = {}
    for name in ID_FILES:
        settings = read_object(folder / name)
        claims = {key: value for key, value in settings.items() if key.endswith("_token_id")}
        sizes = (part.get(SIZE) for part in (settings, *map(settings.get, TEXT_CONFIGS)) if isinstance(part, dict))
        claims[SIZE] = next((size for size in sizes if size is not None), None)
        found[name] = claims
    for name in TOKEN_FILES:
        settings = read_object(folder / name)
        more = settings.get(MORE) or []
        claims = {role: _text(settings.get(role)) for role in ROLES}
        claims |= {f"{MORE}[{n}]": _text(token) for n, token in enumerate(more if isinstance(more, list) else [more])}
        listed = settings.get(LISTED)
        claims |= {f"{LISTED}[{number}]": _text(token) for number, token in (listed or {}).items()}
        found[name] = claims
    said = {name: {key: value for key, value in claims.items() if value is not None} for name, claims in found.items()}
    return {name: claims for name, claims in said.items() if claims}


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _changed(ours: Claims, source: Claims, consumed: tuple[str, ...]) -> Iterator[str]:
    """What the finished folder says otherwise than its source."""
    for name in sorted(ours.keys() | {name for name in source if name in consumed}):
        here, there = ours.get(name, {}), source.get(name, {})
        for key in sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key)):
            yield f"{name} says {key} {_shown(here.get(key))}, the source's {_shown(there.get(key))}"


def contradictions(claims: Claims, tokenizer: Tokenizer) -> Iterator[str]:
    """Where a file does not fit the tokenizer, or a file of ids one of tokens."""
    for name, key, token in _tokens(claims):
        number = tokenizer.token_to_id(token) if isinstance(token, str) else None
        if number is None:
            yield f"{name} says {key} {_shown(token)}, which the tokenizer does not know"
        elif key.startswith(LISTED) and key != f"{LISTED}[{number}]":
            yield f"{name} says {key} {_shown(token)}, which is {number} to the tokenizer"
        for other in ID_FILES:
            ids = claims.get(other, {}).get(f"{key}_id")
            if number is not None and ids is not None and number not in _many(ids):
                yield f"{other} says {key}_id {_shown(ids)}, {name} {_shown(token)}, which is {number}"
    for name in ID_FILES:
        for key, found in claims.get(name, {}).items():
            unknown = [one for one in _many(found) if key != SIZE and tokenizer.id_to_token(one) is None]
            if unknown:
                yield f"{name} says {key} {_shown(found)}, and {unknown[0]} is no token"


def _tokens(claims: Claims) -> Iterator[tuple[str, str, Any]]:
    return ((name, key, token) for name in TOKEN_FILES for key, token in claims.get(name, {}).items())


def _many(found: Any) -> list[int]:
    """The ids of a claim; a negative one says that there is none."""
    return [one for one in (found if isinstance(found, list) else [found]) if type(one) is int and one >= 0]


def _used(subject: Subject, tokenizer: Tokenizer, claims: Claims, rows: int) -> Iterator[str]:
    """What a user of a model that writes text would meet, wherever it comes from."""
    from modelkit import kinds  # noqa: PLC0415
    from modelkit.generation.settings import Facts  # noqa: PLC0415

    if "text" not in kinds.load("tasks", subject.manifest.task.kind).GIVES:
        return
    facts = Facts.of(subject.artifact.folder)
    ends = facts.ends()
    for number in sorted(ends):
        if tokenizer.id_to_token(number) is None:
            yield f"{number} is to end a text, and is no token"
    named = {token for _, key, token in _tokens(claims) if key == "eos_token"}
    for token in sorted(named):
        told = tokenizer.token_to_id(token)
        if told is not None and told not in ends:
            yield f"{token} ({told}) ends a text by the tokenizer's files, but only {sorted(ends)} end one here"
    for key in ("pad_token_id", "decoder_start_token_id"):
        if type(number := facts.value(key)) is int and number >= rows:
            yield f"{key} is {number}, and the table ends at {rows - 1}"


class _Table:
    """The embedding table as it shows when the graph is run: onnxruntime refuses an id behind its end.

    Raises `StageError` when the graph does not run on what the task feeds it.
    """

    def __init__(self, subject: Subject, tokenizer: Tokenizer) -> None:
        from modelkit.feeds import Listener  # noqa: PLC0415
        from modelkit.graphs import parts  # noqa: PLC0415
        from modelkit.runtime import Session  # noqa: PLC0415

        self.largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        self._token, folder = tokenizer.id_to_token(self.largest), subject.artifact.folder
        feeds = Listener(folder, subject.manifest.task).feeds(lambda model: model.outputs(["a\na"]))
        reading = [feed for feed in feeds if feed.reads]
        self._feed = dict(reading[0].arrays) if reading else {}
        path = parts(folder)[reading[0].part] if reading else None
        self._session = Session(path, 1, sparing=True) if path else None
        self._end = min(_unguarded(path), default=None) if path else None
        if self._session and not self._runs(self._feed):
            raise StageError("the graph does not run on what its task feeds it")

    def rows(self, claims: Claims) -> int:
        """How many rows there are by config.json, or as many as the tokenizer needs."""
        size = claims.get(ID_FILES[0], {}).get(SIZE)
        return size if type(size) is int else self.largest + 1

    def problems(self, claims: Claims) -> Iterator[str]:
        """Ids that have no row, and a size that is not the table's; nothing for a model that reads no ids."""
        if self._session is None:
            return
        if not self._has(self.largest):
            yield f"the embedding table has no row for {self.largest}, the tokenizer's {_shown(self._token)}"
        size = claims.get(ID_FILES[0], {}).get(SIZE)
        if size is not None and not (type(size) is int and self._has(size - 1) and not self._has(size)):
            yield f"config.json says {SIZE} {_shown(size)}, which is not the number of rows in the embedding table"
        scored = self._session.outputs.get("logits", ("", [None]))[1][-1]
        # What a model chooses, it reads next.
        if "position_ids" in self._feed and isinstance(scored, int) and not self._has(scored - 1):
            yield f"the model can choose {scored - 1}, and the embedding table has no row for it"

    def _has(self, number: int) -> bool:
        import numpy as np  # noqa: PLC0415

        if self._end is not None and number >= self._end:
            return False
        return self._runs({**self._feed, "input_ids": np.full_like(self._feed["input_ids"], number)})

    def _runs(self, feed: Mapping[str, Any]) -> bool:
        assert self._session is not None
        try:
            self._session.run(feed)
        except CheckError:
            return False
        return True


def _unguarded(path: Path) -> Iterator[int]:
    """How many rows the tables have whose lookup, in onnxruntime 1.32, reads what lies behind the last row."""
    from modelkit.graphs.contents import nodes, tensors  # noqa: PLC0415
    from modelkit.graphs.files import read_graph  # noqa: PLC0415

    model = read_graph(path)
    rows = {tensor.name: tensor.dims[0] for tensor in tensors(model) if tensor.dims}
    for node in nodes(model):
        if node.op_type == "GatherBlockQuantized" and node.input[1] == "input_ids" and node.input[0] in rows:
            yield rows[node.input[0]]


def _shown(found: Any) -> str:
    return "nothing" if found is None else f"'{found}'" if isinstance(found, str) else str(found)
