"""What a task feeds to its graphs: the task's own object over sessions that take notes and do not run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit import kinds
from modelkit.graphs import parts
from modelkit.vocabulary import Choice


@dataclass(frozen=True)
class Feed:
    """One run that was asked for: of which part, and with which arrays."""

    part: str
    arrays: Mapping[str, Any]

    @property
    def reads(self) -> bool:
        """Whether it reads texts: the decoder of a model in parts is fed what was said so far."""
        return "input_ids" in self.arrays and "encoder_hidden_states" not in self.arrays

    @property
    def given(self) -> bool:
        """Whether all of it comes from what was asked, and nothing from what a graph gave before."""
        floats = {name for name, array in self.arrays.items() if array.dtype.kind == "f" and array.size}
        return floats <= {"pixel_values"}


class Note:
    """Stands in for a `runtime.Session`: declares what the graph declares, and gives ones of the declared shapes."""

    def __init__(self, part: str, path: Path, feeds: list[Feed]) -> None:
        from modelkit.graphs.files import read_graph  # noqa: PLC0415

        graph = read_graph(path).graph
        self._part, self._feeds = part, feeds
        stored = {tensor.name for tensor in graph.initializer}
        self.inputs = {value.name: _declared(value) for value in graph.input if value.name not in stored}
        self.outputs = {value.name: _declared(value) for value in graph.output}

    def run(self, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """Ones, which unlike zeros can be divided by, in the places of the named outputs."""
        import numpy as np  # noqa: PLC0415

        self._feeds.append(Feed(self._part, dict(feed)))
        first = next(iter(feed.values()))
        batch, length = first.shape[0], feed["input_ids"].shape[1] if "input_ids" in feed else 1
        made = []
        for name in self.outputs if outputs is None else outputs:
            kind, axes = self.outputs[name]
            sizes = [axis if isinstance(axis, int) else length if place else batch for place, axis in enumerate(axes)]
            made.append(np.broadcast_to(np.ones((), _dtype(kind)), sizes))
        return made


class Notes:
    """Stands in for `runtime.Sessions`."""

    def __init__(self, folder: Path, feeds: list[Feed]) -> None:
        self._paths, self._feeds = parts(folder), feeds
        self._read: dict[str, Note] = {}

    def __getitem__(self, part: str) -> Note:
        """Raises `StageError` when the graph cannot be read."""
        if part not in self._read:
            self._read[part] = Note(part, self._paths[part], self._feeds)
        return self._read[part]

    def __iter__(self) -> Iterator[str]:
        """The names of the parts."""
        return iter(self._paths)

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._paths)


class Listener:
    """The object of `task` for the finished folder `folder`, over graphs that only listen.

    Raises `StageError` as the task does, for a tokenizer that does not parse for example.
    """

    def __init__(self, folder: Path, task: Choice) -> None:
        self._feeds: list[Feed] = []
        self.model: Any = kinds.load("tasks", task.kind).open_(folder, Notes(folder, self._feeds), task.options)
        """`outputs` and the rest give ones, in the shapes and types that the graphs declare."""

    def feeds(self, call: Callable[[Any], object]) -> list[Feed]:
        """The runs that `call(model)` asks for. Raises what the task raises, for a text that it refuses."""
        self._feeds.clear()
        call(self.model)
        return list(self._feeds)

    def ids(self, texts: Sequence[str], **more: Any) -> list[tuple[int, ...]]:
        """The tokens of each text that `outputs(texts, **more)` feeds, without padding, in the order of the runs.

        Empty for a model that takes no ids.
        """
        import numpy as np  # noqa: PLC0415

        rows: list[list[int]] = []
        for feed in self.feeds(lambda model: model.outputs(list(texts), **more)):
            if feed.reads:
                fed, mask = feed.arrays["input_ids"], feed.arrays.get("attention_mask")
                now = np.ones_like(fed) if mask is None else mask[:, -fed.shape[1] :]
                read = [[int(number) for number in one[kept == 1]] for one, kept in zip(fed, now, strict=True)]
                # A mask that is longer than the ids counts those that an earlier run has read of the same texts.
                if mask is not None and mask.shape[1] > fed.shape[1]:
                    start = len(rows) - len(read)
                    rows[start:] = [before + one for before, one in zip(rows[start:], read, strict=True)]
                else:
                    rows.extend(read)
        return [tuple(row) for row in rows]


def _declared(value: Any) -> tuple[str, list[int | str]]:
    """As onnxruntime tells it: `tensor(float)`, and for each axis its length or its name."""
    import onnx  # noqa: PLC0415

    tensor = value.type.tensor_type
    axes = [axis.dim_value if axis.HasField("dim_value") else axis.dim_param for axis in tensor.shape.dim]
    return f"tensor({onnx.TensorProto.DataType.Name(tensor.elem_type).lower()})", axes


def _dtype(kind: str) -> Any:
    import numpy as np  # noqa: PLC0415

    named = kind.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(named, named))
