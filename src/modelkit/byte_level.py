"""vocab.json and merges.txt -> tokenizer.json: the byte-level BPE tokenizers of RoBERTa and GPT-2, CodeT5's among them.

The ids are those of transformers' `RobertaTokenizerFast` and `GPT2TokenizerFast` for the same files, and so are the
flags of the added tokens. tokenizer.json is written as text, so that its bytes depend on this module and the files
alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.errors import StageError
from modelkit.json_objects import read_object

VOCABULARY, MERGES = "vocab.json", "merges.txt"
CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
_UNTOUCHED = {**PLAIN, "normalized": False}
_WORD = {**PLAIN, "lstrip": True, "normalized": False}
"""A mask stands for a word, and takes the space before it along."""
_LISTED = "added_tokens_decoder"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""In the order in which those that the vocabulary lacks get their ids."""


@dataclass(frozen=True)
class _Family:
    """What a class of tokenizers takes for granted where its files say nothing."""

    tokens: Mapping[str, str]
    flags: Mapping[str, Mapping[str, bool]]
    """Role -> what a token by its name alone has there; in other roles it is `_UNTOUCHED`."""
    post_processor: Callable[[Mapping[str, Any], Mapping[str, int], bool], dict[str, Any]]


def _roberta(settings: Mapping[str, Any], ids: Mapping[str, int], space: bool) -> dict[str, Any]:
    cls, sep = (_text(settings[role]) for role in ("cls_token", "sep_token"))
    trim = bool(settings.get("trim_offsets", True))
    return {
        "type": "RobertaProcessing",
        "sep": [sep, ids[sep]],
        "cls": [cls, ids[cls]],
        "trim_offsets": trim,
        "add_prefix_space": space,
    }


def _gpt2(settings: Mapping[str, Any], ids: Mapping[str, int], space: bool) -> dict[str, Any]:  # noqa: ARG001
    if settings.get("add_bos_token"):
        raise StageError(
            f"{CONFIG} asks for add_bos_token, which is not built from {VOCABULARY} and {MERGES}", hint=MAKE_ONE
        )
    return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


_END = "<|endoftext|>"
_OWN = ("bos_token", "eos_token", "unk_token", "pad_token")
FAMILIES = {
    "RobertaTokenizer": _Family(
        {
            **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>"},
            **{"pad_token": "<pad>", "cls_token": "<s>", "mask_token": "<mask>"},
        },
        {**dict.fromkeys(ROLES, PLAIN), "mask_token": _WORD},
        _roberta,
    ),
    "GPT2Tokenizer": _Family(
        {"bos_token": _END, "eos_token": _END, "unk_token": _END}, dict.fromkeys(_OWN, PLAIN), _gpt2
    ),
}
MAKE_ONE = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers makes one"


def is_there(folder: Path) -> bool:
    """Whether `folder` has the files that this module reads."""
    return (folder / VOCABULARY).exists() and (folder / MERGES).exists()


def tokenizer_json(folder: Path) -> str:
    """The text of a tokenizer.json that says the same as the older files in `folder`.

    Raises `StageError` for files that are damaged, that contradict each other or that are another family's.
    """
    vocabulary, settings = _vocabulary(folder), _settings(folder)
    family = _family(folder, settings, vocabulary)
    added = _numbered(_added(folder, settings, family), vocabulary)
    settings = {**family.tokens, **settings}
    ids = vocabulary | {token["content"]: token["id"] for token in added}
    space = bool(settings.get("add_prefix_space", False))
    made = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": True},
        "post_processor": family.post_processor(settings, ids, space),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(folder),
        },
    }
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def _vocabulary(folder: Path) -> dict[str, int]:
    found = read_object(folder / VOCABULARY)
    if not all(type(number) is int and number >= 0 for number in found.values()):
        raise StageError(f"{VOCABULARY} gives a token something that is no number", hint="fetch the source again")
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def _merges(folder: Path) -> list[list[str]]:
    """The pairs, the most urgent first. The first line is the version; transformers takes the last for empty."""
    try:
        lines = (folder / MERGES).read_text(encoding="utf-8").split("\n")[1:-1]
    except ValueError as error:
        raise StageError(f"{MERGES} is no UTF-8 text ({error})", hint="fetch the source again") from error
    pairs = list(dict.fromkeys(tuple(line.split()) for line in lines))
    if bad := next((pair for pair in pairs if len(pair) != 2), None):
        raise StageError(f"{MERGES} has a line that is no pair: '{' '.join(bad)[:60]}'", hint="fetch the source again")
    if () in pairs:
        raise StageError(f"{MERGES} has an empty line between its pairs", hint="fetch the source again")
    return [list(pair) for pair in pairs]


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with special_tokens_map.json over it where it does not list the added tokens itself."""
    config = read_object(folder / CONFIG)
    if _LISTED in config:
        return config
    special = read_object(folder / SPECIAL)
    more = [*_list(config), *(token for token in _list(special) if token not in _list(config))]
    return {**config, **special, "additional_special_tokens": more}


def _list(settings: Mapping[str, Any]) -> list[Any]:
    found = settings.get("additional_special_tokens") or []
    return found if isinstance(found, list) else [found]


def _family(folder: Path, settings: Mapping[str, Any], vocabulary: Mapping[str, int]) -> _Family:
    """By the name in tokenizer_config.json or config.json; old files name none, and their vocabularies tell."""
    named = settings.get("tokenizer_class") or read_object(folder / "config.json").get("tokenizer_class")
    if named is None:
        named = next((kind for kind, it in FAMILIES.items() if set(it.tokens.values()) <= set(vocabulary)), None)
    family = FAMILIES.get(str(named).removesuffix("Fast"))
    if family is None:
        raise StageError(
            f"the source has no tokenizer.json, and {VOCABULARY} with {MERGES} is read for {' and '.join(FAMILIES)}, "
            f"not for {named or 'a tokenizer that no file names'}",
            hint=MAKE_ONE,
        )
    return family


def _added(folder: Path, settings: Mapping[str, Any], family: _Family) -> list[dict[str, Any]]:
    """The added tokens in the order of their ids, those without one last; `id` is what a file says, if one does."""
    found = _listed(settings) if _LISTED in settings else _numbered_elsewhere(folder, settings)
    known, roles = set(found), dict[str, str]()
    for role, token in _special(settings, family):
        content = _text(token)
        # Of several roles for one text the first decides, and the last entry of a list.
        if roles.setdefault(content, role) != role:
            continue
        listed = _LISTED in settings and role in ROLES and role in settings
        flags: Mapping[str, Any]
        if content in known and (listed or (role not in family.flags and isinstance(token, str))):
            flags = found[content]
        elif isinstance(token, dict):
            flags = {**PLAIN, **_flags(token)}
        else:
            flags = family.flags.get(role, _UNTOUCHED)
        found[content] = {**found.get(content, {}), **flags, "content": content, "special": True}
    return list(found.values())


def _special(settings: Mapping[str, Any], family: _Family) -> Iterator[tuple[str, Any]]:
    """Role and special token. What a file sets to null is no token, whatever the family has there."""
    for role in ROLES:
        if (token := settings.get(role, family.tokens.get(role))) is not None:
            yield role, token
    for token in _list(settings):
        yield "additional_special_tokens", token


def _listed(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`added_tokens_decoder`: every added token by its id, with its flags."""
    try:
        tokens = {int(number): token for number, token in settings[_LISTED].items()}
        rows: list[dict[str, Any]] = [
            {**PLAIN, "special": False, **_flags(token), "content": _text(token), "id": n}
            for n, token in tokens.items()
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise StageError(f"{CONFIG}: {_LISTED} is no list of tokens", hint="fetch the source again") from error
    return {row["content"]: row for row in sorted(rows, key=lambda row: row["id"])}


def _numbered_elsewhere(folder: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """added_tokens.json: text -> id; which of them are special is said by the other files."""
    numbers = read_object(folder / ADDED)
    if not all(type(number) is int for number in numbers.values()):
        raise StageError(f"{ADDED} gives a token something that is no number", hint="fetch the source again")
    special = {_text(settings[role]) for role in ROLES if settings.get(role)} | {_text(t) for t in _list(settings)}
    return {
        text: {**PLAIN, "normalized": text not in special, "special": text in special, "content": text, "id": number}
        for text, number in sorted(numbers.items(), key=lambda item: item[1])
    }


def _flags(token: Mapping[str, Any]) -> dict[str, bool]:
    return {flag: bool(token[flag]) for flag in (*PLAIN, "special") if flag in token}


def token_text(token: Any) -> str | None:
    """The text of a special token as the tokenizer's files have it: by itself, or among its flags; None for neither."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _text(token: Any) -> str:
    text = token_text(token)
    if not text:
        raise StageError("a special token in the tokenizer's files has no text", hint="fetch the source again")
    return text


def _numbered(added: list[dict[str, Any]], vocabulary: Mapping[str, int]) -> list[dict[str, Any]]:
    """Every token with its id: the vocabulary's, or the next behind all others, which must be what the files say."""
    numbered: list[dict[str, Any]] = []
    following = len(vocabulary)
    for token in added:
        number = vocabulary.get(token["content"], following)
        following = max(following, number + 1)
        if token.get("id", number) != number:
            raise StageError(
                f"the added token '{token['content']}' is to have the id {token['id']}, but it gets {number}",
                hint="the tokenizer's files do not belong together",
            )
        order = ("id", "content", *PLAIN, "special")
        numbered.append({key: {**token, "id": number}[key] for key in order})
    return numbered
