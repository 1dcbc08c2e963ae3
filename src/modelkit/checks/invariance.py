"""A text gets the same outputs alone and in a batch, among the worst neighbours that a search finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from modelkit import corpora
from modelkit.errors import CheckError, InputError
from modelkit.limits import at_least, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from modelkit.distances import Distance

    Batch = tuple[str, ...]

VERSION = 2
PROMISE = "what a text gets does not depend on the texts it shares a batch with, the worst that a search finds included"
EXAMPLES = {"quick": 24, "full": 200, "release": 1000}
BATCH = 32
SHOWN, WORST = 80, 5
KEPT = 2**26
"""Bytes of outputs that are kept, so that a text is not run alone again and again."""

ROUND, ELITE = 6, 8
"""Batches of a round of the search, and texts it draws from: the worst that the rounds before it found."""
MOST, SHORT = 10, 120
"""Texts of a batch that is drawn, and the length of most: a long one costs as much as ten of them."""
MATES = 4
"""Neighbours that stay when a batch is changed, and at most so many that come."""
LONGEST_WORD = 16
CHANGES = ("replace", "insert", "drop", "twice", "join")
RARE = "﷽㍿ﬃ𒐫𓂀🏴🧬\u200d\u0301\u0e47\u202e\u00ad\ufffd\ufeffǅıßσ∰№½Ⅷ❡₿䨻ꙮ܀᚛ༀ"
"""Characters that tokenizers expand, drop, or do not know: ligatures, marks without a letter, rare scripts."""


@dataclass(frozen=True)
class Options:
    """Least cosine between a text's vectors alone and in a batch, and between its rows of logits. None is no limit."""

    batch_cosine_min: float | None = at_least(0.9999)
    batch_logits_min: float | None = at_least(0.9995)


def check(subject: Subject, limits: Options) -> Verdict:
    """32 texts of all lengths together, then batches that are drawn ever nearer to the worst one so far; images too.

    Raises `CheckError` when a text of the corpus cannot be answered alone.
    """
    from modelkit import distances  # noqa: PLC0415

    distance = distances.of_task(subject.manifest)
    names = {row["text"]: row["id"] for row in subject.corpus}
    seen = Neighbours(subject.open(subject.artifact), distance, frozenset(names))
    kinds = [rows for rows in by_kind(subject.corpus) if len(rows) > 1]
    for rows in kinds:
        seen.beside([row["text"] for row in corpora.spread(rows, BATCH)])
        search(seen, [row["text"] for row in rows], subject.examples // len(kinds))
    if seen.broken:
        return Verdict("invariance", "failed", seen.broken)
    worst = seen.worst(WORST)
    measured, limits = distances.figures(distance, worst[0].distance, limits)
    told = {"max_abs": max(case.max_abs for case in worst), "texts": len(seen.cases), "batches": seen.batches}
    verdict = judge("invariance", {**measured, **told}, limits, tuple(_told(case, names) for case in worst))
    if verdict.outcome == "passed":
        return verdict
    first = _told(seen.fewer(worst[0]), names)
    sentence = f"{verdict.sentence}: {first['text']!r} beside {', '.join(map(repr, first['beside']))}"
    return replace(verdict, sentence=sentence, worst=(first, *verdict.worst[1:]))


@dataclass(frozen=True)
class Case:
    """A text, the others of its batch, and how far they took it from what it gets alone."""

    text: str
    beside: Batch
    distance: float
    """One minus the cosine."""
    max_abs: float
    """Largest difference of a single number."""


@dataclass
class Neighbours:
    """What each text gets alone, and the worst that happened to it in a batch."""

    model: Any
    distance: Distance
    known: frozenset[str] = frozenset()
    """Texts that the model has to answer; one that was made up may be refused."""
    cases: dict[str, Case] = field(default_factory=dict)
    batches: int = 0
    broken: str = ""
    """What went wrong altogether, if anything did: a number that is not finite, a batch that does not run."""
    _alone: dict[str, Any] = field(default_factory=dict)

    def beside(self, texts: Sequence[str]) -> float:
        """The largest distance of any of `texts` when they are one batch; each is remembered."""
        import numpy as np  # noqa: PLC0415

        rows = {text: row for text in dict.fromkeys(texts) if (row := self.alone(text)) is not None}
        batch = [*rows]
        if len(batch) < 2 or self.broken:
            return 0.0
        self.batches += 1
        try:
            together = self.model.outputs(batch, batch_size=len(batch))
        except CheckError as error:
            self.broken = f"a batch of {len(batch)} texts does not run, though each of them does: {error.message}"
            return 0.0
        alone = np.stack([*rows.values()])
        found = self.distance(alone, together)
        if len(wild := np.flatnonzero(~np.isfinite(found))):
            self.broken = f"what the text {short(batch[wild[0]])!r} gets is not finite ({len(wild)} such texts)"
            return 0.0
        for text, *far in zip(batch, found.tolist(), np.abs(alone - together).max(1).tolist(), strict=True):
            if text not in self.cases or far[0] > self.cases[text].distance:
                self.cases[text] = Case(text, tuple(other for other in batch if other != text), *far)
        return float(found.max())

    def alone(self, text: str) -> Any:
        """float32[width]; None for a text that was made up and gets nothing by itself: no neighbour is to blame."""
        import numpy as np  # noqa: PLC0415

        if text not in self._alone:
            try:
                row = np.asarray(self.model.outputs([text], batch_size=1))[0]
            except (InputError, CheckError):
                if text in self.known:
                    raise
                row = None
            if text not in self.known and row is not None and not (np.isfinite(row).all() and row.any()):
                row = None
            if row is not None and len(self._alone) * row.nbytes > KEPT:
                self._alone.clear()
            self._alone[text] = row
        return self._alone[text]

    def worst(self, count: int) -> list[Case]:
        """The worst texts, each with its worst batch. Raises `CheckError` when no two texts shared a batch."""
        if not self.cases:
            raise CheckError("no two texts of the corpus can share a batch", hint="write other texts")
        return sorted(self.cases.values(), key=lambda case: -case.distance)[:count]

    def fewer(self, case: Case) -> Case:
        """`case` with half of its neighbours, and half of those, as long as half of the distance remains."""
        while len(case.beside) > 1:
            halves = (case.beside[::2], case.beside[1::2])
            smaller = max((self._with(case.text, half) for half in halves), key=lambda one: one.distance)
            if not smaller.distance >= case.distance / 2:
                break
            case = smaller
        return case

    def _with(self, text: str, others: Batch) -> Case:
        alone = self.alone(text)[None]
        together = self.model.outputs([text, *others], batch_size=len(others) + 1)[:1]
        return Case(text, others, float(self.distance(alone, together)[0]), float(abs(alone - together).max()))


def search(seen: Neighbours, texts: Sequence[str], examples: int, seed: int = 0) -> None:
    """Try `examples` batches of `texts` and of what can be made of them; `seen` remembers the worst of each text.

    Each round takes a seed of its own, from `seed` on.
    """
    from modelkit import searching  # noqa: PLC0415

    for number, start in enumerate(range(0, examples, ROUND)):
        if _is_image(texts[0]):
            drawn = images(texts)
        else:
            there = (case for case in seen.cases.values() if case.distance > 0 and not _is_image(case.text))
            elite = sorted(there, key=lambda case: -case.distance)[:ELITE]
            drawn = batches(texts, elite)
        searching.worst(drawn, seen.beside, min(ROUND, examples - start), seed + number)


def batches(texts: Sequence[str], elite: Sequence[Case] = ()) -> SearchStrategy[list[str]]:
    """Batches of short texts, or of two short ones and one of any length: of `texts`, of single words and characters,
    of repetitions, and, where there is an `elite`, most of them changes of it, half of the time with its neighbours."""
    from hypothesis import strategies as st  # noqa: PLC0415

    # Of a pair written as one text, the last line stays what it is.
    tails = sorted({"\n" + text.rpartition("\n")[2] for text in texts}) if all("\n" in text for text in texts) else [""]
    tail = st.sampled_from(tails)
    word = st.sampled_from(sorted({word for text in texts for word in text.split() if len(word) <= LONGEST_WORD}))
    made = (
        st.lists(word, min_size=1, max_size=3).map(" ".join),
        st.builds(str.__mul__, st.text(RARE, min_size=1, max_size=3), st.integers(1, 12)),
        st.builds(str.__mul__, word.map("{} ".format), st.integers(2, 20)),
    )
    own = st.sampled_from([text for text in texts if len(text) <= SHORT] or sorted(texts, key=len)[:ELITE])
    kinds = [own, *(st.builds(str.__add__, one, tail) for one in made)]
    if elite:
        best = st.sampled_from([case.text for case in elite])
        changed = st.builds(_changed, best, word, st.integers(0, 20), st.sampled_from(CHANGES))
        kinds += [best, changed, changed, changed]
    text = st.one_of(kinds)
    long = st.tuples(text, text, st.sampled_from(texts)).map(list)
    few = st.lists(text, min_size=2, max_size=MOST)
    if not elite:
        return st.one_of(few, few, few, long)
    again = st.builds(
        lambda case, change, others: [case.text, _changed(case.text, *change), *case.beside[:MATES], *others],
        st.sampled_from(elite), st.tuples(word, st.integers(0, 20), st.sampled_from(CHANGES)),
        st.lists(text, max_size=MATES),
    )  # fmt: skip
    return st.one_of(few, again, again, long)


def images(texts: Sequence[str]) -> SearchStrategy[list[str]]:
    """Batches of images, which are all of one size by the time that a model sees them."""
    from hypothesis import strategies as st  # noqa: PLC0415

    return st.lists(st.sampled_from(texts), min_size=2, max_size=MOST)


def _changed(text: str, word: str, place: int, how: str) -> str:
    said, end, tail = text.rpartition("\n")
    words = (said if end else tail).split(" ")
    place %= len(words)
    words[place : place + 1] = {
        "replace": [word], "insert": [word, words[place]], "drop": [], "twice": [words[place]] * 2,
        "join": [words[place] + word],
    }[how]  # fmt: skip
    changed = " ".join(words)[: 2 * SHORT] or word
    return changed + end + tail if end else changed


def by_kind(corpus: Sequence[Mapping[str, str]]) -> list[list[Mapping[str, str]]]:
    """The texts, and the images: one never shares a batch with the other."""
    return [[row for row in corpus if _is_image(row["text"]) == kind] for kind in (False, True)]


def _is_image(text: str) -> bool:
    from modelkit.images import DATA_URL  # noqa: PLC0415

    return text.startswith(DATA_URL)


def short(text: str) -> str:
    """As it is shown."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _told(case: Case, names: Mapping[str, str]) -> dict[str, Any]:
    """The neighbours are the first few of the longest: they decide how far the others are padded."""
    beside = sorted(case.beside, key=len, reverse=True)[:3]
    return {"text": short(case.text), "id": names.get(case.text), "one_minus_cosine": case.distance,
            "batch": len(case.beside) + 1, "beside": [short(text) for text in beside]}  # fmt: skip
