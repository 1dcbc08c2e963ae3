"""Everything a graph gives is nearly what the float32 graph gives, and not only what its task reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelkit import kinds
from modelkit.errors import CheckError
from modelkit.limits import at_least, at_most, judge
from modelkit.vocabulary import Subject, Verdict

if TYPE_CHECKING:
    from modelkit.runtime import Session
    from modelkit.tracing import Fed

VERSION = 2
PROMISE = "every float output that the signature declares is nearly the float32 model's, be it read by the task or not"
TEXTS = 16
WRITING, TOKENS = 2, 3
"""Texts, and tokens after each, that a model which writes reads one by one with its cache."""
RESOLUTION = 2.0**-24
"""Half the distance from 1 to the next float32 (IEEE 754, 24 bits): a smaller error is none."""
WORST = 5


@dataclass(frozen=True)
class Options:
    """The least signal-to-noise ratios of an output in dB, by its mean square and by its peak, and the largest
    difference of a number, which has no standard: it is as large as the model's numbers are."""

    snr: float = at_least(9.0)
    psnr: float = at_least(20.0)
    max_abs: float | None = at_most(None)


@dataclass
class Compared:
    """One output over all runs of a kind, and its signal-to-noise ratios in dB.

    A difference below float32's own resolution counts as that, so nothing has more than 144.5 dB.
    """

    part: str
    output: str
    continued: bool
    """Whether the runs went on from a cache: a few steps would not show beside whole texts."""
    peak: float = 0.0
    """Largest magnitude in the float32 model's numbers."""
    max_abs: float = 0.0
    noise: float = 0.0
    """Sum of the squared differences."""
    signal: float = 0.0
    """Sum of the float32 model's squares."""
    count: int = 0

    def add(self, ours: Any, theirs: Any) -> None:
        """Two float64 arrays of one shape, every number finite."""
        import numpy as np  # noqa: PLC0415

        difference = np.abs(ours - theirs)
        self.peak = max(self.peak, float(np.abs(theirs).max()))
        self.max_abs = max(self.max_abs, float(difference.max()))
        self.noise += float((difference**2).sum())
        self.signal += float((theirs**2).sum())
        self.count += theirs.size

    @property
    def snr(self) -> float:
        """10 log10 of the ratio of the sums of squares, the signal's and the noise's."""
        return decibels(self.signal, self.noise)

    @property
    def psnr(self) -> float:
        """The same with the square of the peak in the place of the signal's mean square."""
        return decibels(self.peak**2, self.noise / self.count)


def decibels(signal: float, noise: float) -> float:
    """Of two powers, 10 log10(signal / noise); noise that is nothing beside the signal counts as (2**-24)**2 of it."""
    from math import log10  # noqa: PLC0415
    from sys import float_info  # noqa: PLC0415

    if noise <= signal * RESOLUTION**2:
        return -20 * log10(RESOLUTION)
    return 10 * log10(max(signal, float_info.min) / noise)


def check(subject: Subject, limits: Options) -> Verdict:
    """Run both models' graphs on what the task feeds to the float32 model. What is missing, of another shape or not
    finite fails.

    Raises `CheckError` when there is nothing to compare with: a part that no text reaches, outputs that are empty or
    not finite in float32.
    """
    from modelkit import graphs, runtime, tracing  # noqa: PLC0415

    recorders = tracing.Recorders(runtime.Sessions(graphs.parts(subject.reference.folder)))
    _record(subject, recorders)
    parts, found = graphs.parts(subject.artifact.folder), []
    for part, signature in subject.manifest.signatures.items():
        names = [spec.name for spec in signature.outputs if spec.dtype.startswith("float")]
        fed = recorders.recorders[part].fed if part in recorders.recorders else []
        if not fed:
            raise CheckError(f"no text of the corpus reaches {part}", hint="add one to the corpus")
        if part not in parts:
            return Verdict("outputs", "failed", f"the artifact has no {part}")
        session = runtime.Session(parts[part])
        if missing := [name for name in names if name not in session.outputs]:
            return Verdict("outputs", "failed", f"{part} does not give {', '.join(missing)}")
        compared = _compared(part, names, fed, session, recorders[part].session)
        if isinstance(compared, str):
            return Verdict("outputs", "failed", compared)
        found += compared
    ranked = sorted(found, key=lambda one: one.snr)
    measured = {
        "snr": ranked[0].snr,
        "psnr": min(one.psnr for one in found),
        "max_abs": max(one.max_abs for one in found),
        "outputs": len({(one.part, one.output) for one in found}),
    }
    worst = tuple({"part": one.part, "output": one.output, "continued": one.continued, "snr": round(one.snr, 3),
                   "psnr": round(one.psnr, 3), "max_abs": one.max_abs, "peak": one.peak}
                  for one in ranked[:WORST])  # fmt: skip
    return judge("outputs", measured, limits, worst)


def chosen(corpus: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Of each group of the corpus the text of middle length, and the shortest and the longest of all; of many groups 16
    texts. An image is longer than any text, so both parts of a model are reached."""
    from modelkit import corpora  # noqa: PLC0415

    ordered = corpora.spread(corpus, len(corpus))
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in ordered:
        groups.setdefault(row["group"], []).append(row)
    middle = [rows[(len(rows) - 1) // 2] for rows in groups.values()]
    return corpora.spread([*{row["id"]: row for row in (*ordered[:1], *middle, *ordered[-1:])}.values()], TEXTS)


def _record(subject: Subject, recorders: Any) -> None:
    """Let the float32 model do what it is for, so that each part is fed what the task feeds it."""
    task = subject.manifest.task
    module = kinds.load("tasks", task.kind)
    opened = module.open_(subject.reference.folder, recorders, task.options)
    texts = [row["text"] for row in chosen(subject.corpus)]
    opened.outputs(texts, batch_size=1)
    if "text" in module.GIVES:
        # A graph with a cache has another branch, or another part, for what comes after a text.
        read = opened.write(texts[:WRITING], max_tokens=1, temperature=0)
        for _ in opened.scores([one._replace(answer=(one.prompt * TOKENS)[:TOKENS]) for one in read], cached=True):
            pass


def _compared(
    part: str, names: Sequence[str], fed: Iterable[Fed], ours: Session, theirs: Session
) -> list[Compared] | str:
    """Each output of a part over the feeds of each kind, or why the artifact's does not compare."""
    import numpy as np  # noqa: PLC0415

    found = {(name, continued): Compared(part, name, continued) for name in names for continued in (False, True)}
    for one in fed:
        for name, mine, exact in zip(names, ours.run(one.feed, names), theirs.run(one.feed, names), strict=True):
            if mine.shape != exact.shape:
                return f"{name} of {part} has the shape {list(mine.shape)}, float32's {list(exact.shape)}"
            if not np.isfinite(exact).all():
                raise CheckError(f"the float32 model's own {name} is not finite", hint="look at the weights")
            if not np.isfinite(mine).all():
                return f"{name} of {part} is not finite"
            # An output that a branch leaves alone is empty there.
            if exact.size:
                found[name, _goes_on(one.feed)].add(np.asarray(mine, np.float64), np.asarray(exact, np.float64))
    measured = [one for one in found.values() if one.count]
    if empty := [name for name in names if name not in {one.output for one in measured}]:
        raise CheckError(f"the float32 model's {empty[0]} is empty for every text", hint="look at the graph")
    return measured


def _goes_on(feed: Mapping[str, Any]) -> bool:
    """Whether a cache with something in it is fed."""
    from modelkit.generation.caches import BRANCH, PAST  # noqa: PLC0415

    if BRANCH in feed:
        return bool(feed[BRANCH].any())
    return any(name.startswith(PAST) and array.size for name, array in feed.items())
