"""Whatever text comes, alone or among others, it gets a row of numbers that can be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modelkit.errors import ModelkitError, StageError
from modelkit.limits import at_most, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    from modelkit.feeds import Listener

VERSION = 1
PROMISE = "every text, in any batch, gets a finite row of the declared width, of length one where it is normalized"
EXAMPLES = {"quick": 50, "full": 300, "release": 2000}
TOGETHER = 6
"""Most texts of a batch that is drawn."""
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
"""Words of texts that are tried one by one; a graph may have kept a length, or be made for multiples of one."""
WINDOW, PATIENT = 256, 300
"""No text has more tokens than this, for attention takes memory by the square, unless so many examples are tried."""


@dataclass(frozen=True)
class Options:
    """How far a normalized row's length may be from one, and two rows of one text in one batch from each other, as a
    share of the largest number in them."""

    norm_error: float = at_most(1e-3)
    twin_error: float = at_most(1e-4)


def check(subject: Subject, limits: Options) -> Verdict:
    """Run odd texts, lengths up to the longest, all odd ones together, and batches that are drawn."""
    from hypothesis import strategies as st  # noqa: PLC0415

    from modelkit import searching, texts  # noqa: PLC0415
    from modelkit.feeds import Listener  # noqa: PLC0415

    try:
        rows = _Rows(subject, Listener(subject.artifact.folder, subject.manifest.task), limits)
    except StageError as error:
        return Verdict("any-text", "failed", f"the finished folder cannot be used: {error.message}")
    odd = texts.named(pairs=rows.pairs)
    named = ([one] for one in odd), _lengths(rows), iter([odd])
    words = sorted((row["text"] for row in subject.corpus if not row["text"].startswith("data:")), key=len)[:100]
    batches = st.lists(texts.drawn(words, pairs=rows.pairs), min_size=1, max_size=TOGETHER)
    found = searching.all_broken((one for some in named for one in some), batches, rows.reason, subject.examples)
    verdict = judge("any-text", {**rows.measured, "examples": subject.examples}, limits)
    if not found:
        return verdict
    worst = tuple({"reason": one.reason, "again": _again(rows.asked(one.example)[0])} for one in found)
    return replace(verdict, outcome="failed", sentence=f"{found[0].reason}: {worst[0]['again']}", worst=worst)


def _lengths(rows: _Rows) -> Iterator[list[str]]:
    """Texts of many lengths, each by itself, then the longest, and a long one beside a short one."""
    from modelkit.texts import OTHER_HALF  # noqa: PLC0415

    end = f"\n{OTHER_HALF}" if rows.pairs else ""
    for words in LENGTHS:
        yield ["a " * words + end]
    # Twice as many words as tokens: where texts are cut, the longest is one that was.
    short, long = 0, 2 * rows.most + 1
    while long - short > 1:
        words = (short + long) // 2
        short, long = (words, long) if rows.tokens("a " * words + end) in range(rows.most + 1) else (short, words)
    yield ["a " * short + end]
    yield ["a " * min(short, 256) + end, "a" + end]


class _Rows:
    """The model's rows for texts, and what is wrong with them; the worst figures so far."""

    def __init__(self, subject: Subject, listener: Listener, limits: Options) -> None:
        self._model, self._listener, self._limits = subject.open(subject.artifact), listener, limits
        text = getattr(subject.manifest.task.options, "text", None)
        most: int = getattr(text, "max_tokens", WINDOW)
        self.most = most if subject.examples >= PATIENT else min(most, WINDOW)
        self.pairs = hasattr(listener.model, "classify")
        # Vectors of images and of texts are compared by their dot product.
        self._unit = bool(getattr(text, "normalize", hasattr(listener.model, "embed_images")))
        self.measured: dict[str, Any] = {"norm_error": 0.0, "twin_error": 0.0, "normalized": self._unit, "rows": 0,
                                         "longest": 0}  # fmt: skip

    def tokens(self, text: str) -> int:
        """How many tokens of `text` the model is fed; -1 for one that it refuses."""
        try:
            return max(map(len, self._listener.ids([text])), default=0)
        except ModelkitError:
            return -1

    def asked(self, batch: Sequence[str]) -> tuple[list[str], dict[str, int]]:
        """What the model is asked of `batch`, less the texts that it refuses (the tokenizer check looks at those), and
        how many tokens each has. Of several texts the first is there twice."""
        # Of two texts only the first is cut; a pair that is too long all the same has no promise.
        lengths = {text: count for text in batch if 0 <= (count := self.tokens(text)) <= self.most}
        taken = [text for text in batch if text in lengths]
        return taken + taken[:1] if len(taken) > 1 else taken, lengths

    def reason(self, batch: Sequence[str]) -> str | None:
        """What is wrong with the rows that the model gives for `asked`."""
        import numpy as np  # noqa: PLC0415

        asked, lengths = self.asked(batch)
        if not asked:
            return None
        declared = self._listener.model.outputs(asked, batch_size=len(asked))
        try:
            rows = self._model.outputs(asked, batch_size=len(asked))
        except ModelkitError as error:
            return f"the model does not run ({error.message})"
        self.measured["rows"] += len(rows)
        self.measured["longest"] = max(self.measured["longest"], *lengths.values())
        if (rows.shape, rows.dtype) != (declared.shape, declared.dtype):
            return f"the rows are {rows.dtype}{list(rows.shape)}, not {declared.dtype}{list(declared.shape)}"
        if not np.isfinite(rows).all():
            return f"{int((~np.isfinite(rows)).any(1).sum())} of {len(rows)} rows are not finite"
        # Of no tokens nothing can be said, and nothing has no direction.
        said = np.array([lengths[text] > 0 for text in asked])
        return self._lengths_of(rows[said].astype(np.float64)) or self._twins(rows.astype(np.float64))

    def _lengths_of(self, rows: Any) -> str | None:
        import numpy as np  # noqa: PLC0415

        if not self._unit or not len(rows):
            return None
        lengths = np.linalg.norm(rows, axis=1)
        worst = float(lengths[abs(lengths - 1).argmax()])
        off, limit = abs(worst - 1), self._limits.norm_error
        self.measured["norm_error"] = max(self.measured["norm_error"], off)
        return f"a row has the length {worst:.6g}, {off:.2g} from 1 (limit {limit:.2g})" if off > limit else None

    def _twins(self, rows: Any) -> str | None:
        if len(rows) < 2:
            return None
        error = float(abs(rows[0] - rows[-1]).max() / max(abs(rows[0]).max(), 1e-30))
        self.measured["twin_error"] = max(self.measured["twin_error"], error)
        return None if error <= self._limits.twin_error else f"the first text, given twice, gets two rows ({error:.2g})"


def _again(batch: Sequence[str]) -> str:
    """The call that shows it, of what `modelkit.model.load` gives."""
    from modelkit.texts import exact  # noqa: PLC0415

    return f"load(folder).outputs([{', '.join(map(exact, batch))}], batch_size={len(batch)})"
