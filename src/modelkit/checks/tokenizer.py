"""A text becomes the tokens that the source's tokenizer makes of it, and these are what the model is fed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.errors import CheckError, ModelkitError, StageError
from modelkit.texts import shown
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from modelkit.searching import Broken

    Test = Callable[[Sequence[str]], str | None]

VERSION = 1
PROMISE = "every text becomes the tokens that the source's tokenizer makes of it, and the model is fed these"
EXAMPLES = {"quick": 200, "full": 2000, "release": 20000}
TOGETHER = 4
"""Most texts of a batch that is drawn."""
KEEPING = {"ByteLevel", "Digits", "Punctuation", "Split", "UnicodeScripts"}
"""Pre-tokenizers that lose no character of a text, as long as they remove nothing on purpose."""


@dataclass(frozen=True)
class Options:
    """No limits: an id is the same or it is not."""


def check(subject: Subject, limits: Options) -> Verdict:  # noqa: ARG001
    """Compare the vocabularies, then what becomes of odd and long texts, the corpus, and texts that are drawn.

    Skipped for a model without a tokenizer. Raises `CheckError` when the source's own cannot be read.
    """
    from modelkit.feeds import Listener  # noqa: PLC0415
    from modelkit.tokenizer import FILE, read_tokenizer  # noqa: PLC0415

    source, folder = _of_source(subject.source.folder), subject.artifact.folder
    if source is None:
        return Verdict("tokenizer", "skipped", "the source has no tokenizer to compare with")
    try:
        both = _Both(read_tokenizer(folder / FILE), source, _reader(subject.source.folder))
        fed = _Fed(subject, source, Listener(folder, subject.manifest.task))
    except StageError as error:
        return Verdict("tokenizer", "failed", f"the finished folder cannot be used: {error.message}")
    if different := both.different:
        return Verdict("tokenizer", "failed", "; ".join(different[:3]), both.facts)
    found = _broken(subject, lambda batch: both.reason(batch) or fed.reason(batch))
    measured = {**both.facts, **fed.facts, "examples": subject.examples}
    if found:
        worst = tuple({"reason": one.reason, "again": _again(one.example)} for one in found)
        return Verdict("tokenizer", "failed", found[0].reason, measured, worst=worst)
    return Verdict("tokenizer", "passed", f"the same ids for every text; {both.told}; {fed.told}", measured)


def _of_source(folder: Path) -> Tokenizer | None:
    from modelkit import byte_level  # noqa: PLC0415
    from modelkit.tokenizer import FILE, of_source  # noqa: PLC0415

    if not (folder / FILE).exists() and not byte_level.is_there(folder):
        return None
    try:
        return of_source(folder)
    except StageError as error:
        raise CheckError(f"the source's own tokenizer cannot be read: {error.message}", hint=error.hint) from error


def _reader(folder: Path) -> Any:
    """For a source of vocab.json and merges.txt what `tokenizers` itself reads of them: all but the special tokens.

    It takes a first line that is no version for a pair, which transformers does not; then it is no judge.
    """
    from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer  # noqa: PLC0415

    from modelkit import byte_level  # noqa: PLC0415
    from modelkit.json_objects import read_object  # noqa: PLC0415
    from modelkit.tokenizer import FILE  # noqa: PLC0415

    if (folder / FILE).exists() or not (folder / byte_level.MERGES).read_bytes().startswith(b"#version"):
        return None
    space = bool(read_object(folder / byte_level.CONFIG).get("add_prefix_space"))
    names = (str(folder / name) for name in (byte_level.VOCABULARY, byte_level.MERGES))
    return ByteLevelBPETokenizer.from_file(*names, add_prefix_space=space)


def _broken(subject: Subject, test: Test) -> list[Broken[Sequence[str]]]:
    """Up to five batches for which `test` has a reason, smallest first, the first of them as small as it gets."""
    from hypothesis import strategies as st  # noqa: PLC0415

    from modelkit import kinds, searching, texts  # noqa: PLC0415

    pairs = "labels" in kinds.load("tasks", subject.manifest.task.kind).GIVES
    corpus = [row["text"] for row in subject.corpus if not row["text"].startswith("data:")]
    named: list[Sequence[str]] = [[one] for one in (*texts.named(pairs=pairs), *corpus, *texts.long(pairs=pairs))]
    batches = st.lists(texts.drawn(corpus, pairs=pairs), min_size=1, max_size=TOGETHER)
    found = sorted(searching.all_broken(named, batches, test, subject.examples), key=lambda one: len(one.example[0]))
    if found and len(found[0].example) == 1:
        short = texts.smallest(found[0].example[0], lambda piece: test([piece]) is not None)
        found[0] = searching.Broken([short], str(test([short])))
    return found


class _Both:
    """The finished folder's tokenizer beside the source's."""

    def __init__(self, ours: Tokenizer, source: Tokenizer, reader: Any) -> None:
        self._ours, self._source, self._reader = ours, source, reader
        self.different = [*_differences(ours, source)]
        for one in (ours, source):
            one.no_truncation()
            one.no_padding()
        self._added = [token.content for token in source.get_added_tokens_decoder().values()]
        self._lossy = _lossy(ours)
        special = [token.content for token in ours.get_added_tokens_decoder().values() if token.special]
        writable = [text for text in special if ours.token_to_id(text) in _ids(ours, text, special=False)]
        self.facts = {
            "tokens": ours.get_vocab_size(),
            "special_tokens": len(special),
            "special_tokens_that_texts_can_write": writable,
            "round_trip": self._lossy or "exact",
            "judge": "tokenizer.json" if reader is None else "vocab.json and merges.txt",
        }
        self.told = (
            f"texts can write {len(writable)} of its {len(special)} special tokens; "
            f"{f'decoding is not exact: {self._lossy}' if self._lossy else 'decoding gives the text again'}"
        )

    def reason(self, batch: Sequence[str]) -> str | None:
        """How one of the texts is treated otherwise than by the source's tokenizer."""
        return next((reason for text in batch if (reason := self._of(text))), None)

    def _of(self, text: str) -> str | None:
        ours, theirs = self._ours.encode(text), self._source.encode(text)
        if ours.ids != theirs.ids:
            return f"of {shown(text)} {_unlike(ours.ids, theirs.ids, 'the source makes')}"
        if ours.offsets != theirs.offsets:
            return f"of {shown(text)} the tokens stand at other places than in the source's tokenizer"
        return None if any(token in text for token in self._added) else self._of_plain(text)

    def _of_plain(self, text: str) -> str | None:
        """What holds for a text without added tokens, which may take blanks along."""
        ids = _ids(self._ours, text, special=False)
        if self._reader is not None and ids != (own := self._reader.encode(text).ids):
            return f"of {shown(text)} {_unlike(ids, own, 'vocab.json and merges.txt make')}"
        if self._lossy or (self._ours.normalizer and self._ours.normalizer.normalize_str(text) != text):
            return None
        again = self._ours.decode(ids, skip_special_tokens=False)
        return None if again == text else f"{shown(text)} comes back from its tokens as {shown(again)}"


class _Fed:
    """What the model's own object feeds to the graph, beside what the source's tokenizer asks it to feed."""

    def __init__(self, subject: Subject, source: Tokenizer, listener: Any) -> None:
        from modelkit.generation.settings import Facts  # noqa: PLC0415

        self._source, self._listener = source, listener
        text = getattr(subject.manifest.task.options, "text", None)
        self._prefix = next(iter(dict(getattr(text, "prefixes", ())).values()), "")
        self._most: int | None = getattr(text, "max_tokens", None)
        self._pairs = hasattr(listener.model, "classify")
        # A model that answers needs a place for the first token of its answer.
        self._positions = Facts.of(subject.artifact.folder).positions() if hasattr(listener.model, "generate") else None
        mask = source.encode("a").special_tokens_mask
        self._behind = next((n for n, special in enumerate(reversed(mask)) if not special), 0)
        self._counts: Counter[str] = Counter()

    @property
    def facts(self) -> dict[str, int]:
        """How many texts were fed, cut and refused."""
        return {name: self._counts[name] for name in ("fed", "cut", "refused", "not_ids")}

    @property
    def told(self) -> str:
        """The same in words."""
        if self._counts["not_ids"]:
            return "what the model is fed is no input_ids, and was not compared"
        return f"{self._counts['fed']} were fed, {self._counts['cut']} of them cut to {self._most} tokens"

    def reason(self, batch: Sequence[str]) -> str | None:
        """How one text, or all of them together, are fed otherwise."""
        accepted = []
        for text in batch if not self._pairs else [text for text in batch if "\n" in text]:
            whole, wanted = self._wanted(text)
            try:
                heard = self._listener.ids([text])
            except ModelkitError as error:
                if text and whole and whole <= self._longest():
                    return f"the model refuses {shown(text)}, which has {whole} tokens: {error.message}"
                self._counts["refused"] += 1
                continue
            if not heard:
                self._counts["not_ids"] += 1
            elif heard != [tuple(wanted)]:
                return f"of {shown(text)} {_unlike(list(heard[0]), wanted, 'it should be', verb='the model is fed')}"
            else:
                self._counts.update({"fed": 1, "cut": whole > len(wanted)})
                accepted.append(text)
        return self._together(accepted) if len(accepted) > 1 else None

    def _together(self, batch: Sequence[str]) -> str | None:
        alone = Counter(tuple(self._wanted(text)[1]) for text in batch)
        if Counter(self._listener.ids(batch, batch_size=len(batch))) == alone:
            return None
        return f"fed together, {', '.join(map(shown, batch))} are other tokens than each by itself"

    def _longest(self) -> float:
        bounds = [self._most, None if self._positions is None else self._positions - 1]
        return min((bound for bound in bounds if bound is not None), default=float("inf"))

    def _wanted(self, text: str) -> tuple[int, list[int]]:
        """How many tokens there are, and those that are left of them at `max_tokens`, the special ones among them."""
        if self._pairs:
            first, _, second = text.rpartition("\n")
            encoding = self._source.encode(first, second)
            premise = [place for place, number in enumerate(encoding.sequence_ids) if number == 0]
        else:
            encoding = self._source.encode(self._prefix + text)
            premise = list(range(len(encoding.ids) - self._behind))
        over = len(encoding.ids) - (self._most or len(encoding.ids))
        # A second text that leaves no room for the first stays whole, and so does the first.
        gone = set(premise[-over:]) if 0 < over < len(premise) else set()
        return len(encoding.ids), [number for place, number in enumerate(encoding.ids) if place not in gone]


def _differences(ours: Tokenizer, source: Tokenizer) -> Iterator[str]:
    """What differs before any text is read."""
    for what in ("truncation", "padding"):
        here, there = getattr(ours, what), getattr(source, what)
        if here != there:
            yield f"tokenizer.json has {what} {_settings(here)}, the source's {_settings(there)}"
    here, there = ours.get_vocab(with_added_tokens=True), source.get_vocab(with_added_tokens=True)
    changed = (token for token in {*here, *there} if here.get(token) != there.get(token))
    if others := sorted(changed, key=lambda token: (len(token), token)):
        ids = [f"the id {one[others[0]]}" if others[0] in one else "no id" for one in (here, there)]
        yield f"the token {shown(others[0])} has {' here and '.join(ids)} in the source ({len(others)} such tokens)"
    added, its = (one.get_added_tokens_decoder() for one in (ours, source))
    for number in sorted({*added, *its}):
        if repr(added.get(number)) != repr(its.get(number)):
            yield f"the added token {number} is {added.get(number)}, in the source {its.get(number)}"


def _settings(found: Any) -> str:
    return "off" if found is None else json.dumps(found, sort_keys=True)


def _lossy(tokenizer: Tokenizer) -> str | None:
    """Why decoding does not give a text again that the normalizer leaves alone; None where byte-level BPE does."""
    from tokenizers import pre_tokenizers  # noqa: PLC0415

    made = json.loads(tokenizer.to_str())
    steps, ends = _steps(made["pre_tokenizer"], "pretokenizers"), _steps(made["decoder"], "decoders")
    if made["model"]["type"] != "BPE" or [step["type"] for step in ends] != ["ByteLevel"]:
        return "it is no byte-level BPE"
    others = [step["type"] for step in steps if step["type"] not in KEEPING or step.get("behavior") == "Removed"]
    if others or any(step.get("add_prefix_space") for step in steps):
        return f"{others[0] if others else 'a prefix space'} changes the text"
    if made["model"].get("end_of_word_suffix") or made["model"].get("continuing_subword_prefix"):
        return "its tokens carry marks of words"
    missing = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in made["model"]["vocab"]]
    return f"{len(missing)} of the 256 bytes have no token" if missing else None


def _steps(part: Any, key: str) -> list[dict[str, Any]]:
    """The components of a part of tokenizer.json, whether it is one or a sequence."""
    if part is None:
        return []
    return [inner for one in part[key] for inner in _steps(one, key)] if part["type"] == "Sequence" else [part]


def _ids(tokenizer: Tokenizer, text: str, *, special: bool) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=special).ids)


def _unlike(ours: list[int], theirs: list[int], whose: str, verb: str = "the tokenizer makes") -> str:
    """The first place where two lists of ids part, and their lengths."""
    other = (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    place = next(other, min(len(ours), len(theirs)))
    here, there = (f"{len(ids)} tokens, from number {place + 1} on {_shown(ids[place:])}" for ids in (ours, theirs))
    return f"{verb} {here}, where {whose} {there}"


def _shown(ids: list[int]) -> str:
    return str(ids[:3]) if len(ids) <= 3 else f"{str(ids[:3])[:-1]}, ...]"


def _again(batch: Sequence[str]) -> str:
    """What shows it in a session: the tokens of the source's and of the finished folder's file, side by side."""
    read = "tokenizers.Tokenizer.from_file('tokenizer.json')"
    return f"{read}.encode_batch([{', '.join(shown(text, 2000) for text in batch)}])"
