"""What a model's task feeds to each of its graphs, and what comes out: recorded while it answers texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelkit import corpora, graphs, kinds, runtime
from modelkit.images import DATA_URL
from modelkit.vocabulary import Choice

Feed = Mapping[str, Any]


@dataclass(frozen=True)
class Fed:
    """One run of one part."""

    feed: dict[str, Any]
    output: str
    """The output that was read first."""
    exact: Any
    """Its value."""


@dataclass
class Recorder:
    """A session that remembers its runs."""

    session: runtime.Session
    fed: list[Fed] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[Any]:
        """As the session's own."""
        given = self.session.run(feed, outputs)
        self.fed.append(Fed(dict(feed), next(iter(outputs or self.session.outputs)), given[0]))
        return given


@dataclass
class Recorders:
    """The parts of a model, each recorded: open a task's object with them, and they tell what it feeds."""

    sessions: runtime.Sessions
    recorders: dict[str, Recorder] = field(default_factory=dict)

    def __getitem__(self, part: str) -> Recorder:
        return self.recorders.setdefault(part, Recorder(self.sessions[part]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.sessions)

    def __len__(self) -> int:
        return len(self.sessions)


def feeds(folder: Path, task: Choice, texts: list[str]) -> dict[str, list[Fed]]:
    """Part -> its runs, as the task orders them, while the model in `folder` answers `texts` one by one."""
    recorders = Recorders(runtime.Sessions(graphs.parts(folder), sparing=True))
    opened = kinds.load("tasks", task.kind).open_(folder, recorders, task.options)
    opened.outputs(texts, batch_size=1)
    return {part: recorder.fed for part, recorder in recorders.recorders.items() if recorder.fed}


def few(corpus: Sequence[Mapping[str, str]], count: int) -> list[str]:
    """`count` texts of the corpus's shorter half, and as many images: what `feeds` need not be long for."""
    chosen = []
    for images in (False, True):
        rows = [row for row in corpus if row["text"].startswith(DATA_URL) is images]
        chosen += corpora.shorter(rows, count)
    return [row["text"] for row in chosen]
