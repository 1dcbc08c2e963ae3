"""Subjects that write text: learned models with faults in them, and writers that are a rule and no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import small_generators
from modelkit import corpora, manifest, model, pipeline
from modelkit.generation import summaries
from modelkit.generation.answers import Answers, Written, encoded
from modelkit.generation.settings import Generation
from modelkit.store import Store
from modelkit.vocabulary import Fetching, Subject
from small_generators import END, WORDS
from subjects import copied, fake, redrawn, texts

LEARNED = Path(__file__).parent / "learned"
LLAMA, T5 = "llama-summaries", "t5-summaries"
BOTH = (LLAMA, T5)


@cache
def learned(base: Path, name: str, variant: str = "int8", examples: int = 12) -> Subject:
    """A variant of a learned model beside its float32 model, built once below `base`, with the task's own corpus."""
    declared = manifest.load(LEARNED / f"{name}.yaml")
    build = pipeline.Pins(Store(base / "learned")).prepare(
        declared, declared.variants[variant], None, Fetching(LEARNED)
    )
    finished = pipeline.build(build)

    @cache
    def opened(folder: Path) -> Any:
        return model.load(folder, threads=1)

    return Subject(
        declared, declared.variants[variant], finished, build.artifact("converted"), build.artifact("downloaded"),
        corpora.rows(declared)[0], lambda artifact, threads=None: opened(artifact.folder),
        lambda artifact: None, dict, dict, examples,
    )  # fmt: skip


# Faults: each takes a subject whose artifact is a copy, and spoils it.

Fault = Callable[[Subject], Subject]


def spoiled(subject: Subject, folder: Path, fault: Fault) -> Subject:
    """`subject` with a fault in a copy of its artifact."""
    return fault(copied(subject, folder))


def in_file(name: str, edit: Callable[[dict[str, Any]], object]) -> Fault:
    """Edits a JSON file beside the model."""

    def fault(subject: Subject) -> Subject:
        path = subject.artifact.folder / name
        fields = json.loads(path.read_text())
        edit(fields)
        path.write_text(json.dumps(fields))
        return subject

    return fault


def in_matrix(name: str, change: Callable[[Any], Any]) -> Fault:
    """Puts other values into a stored tensor."""

    def edit(proto: onnx.ModelProto) -> None:
        [tensor] = [one for one in proto.graph.initializer if one.name == name]
        changed = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))

    return lambda subject: redrawn(subject, edit)


def swapped(one: int, other: int) -> Callable[[Any], Any]:
    """For `in_matrix`: two rows in each other's place."""

    def change(values: Any) -> Any:
        order = np.arange(len(values))
        order[[one, other]] = other, one
        return values[order]

    return change


ends_elsewhere = in_file("generation_config.json", lambda fields: fields.update(eos_token_id=3))
"""The next id is said to end a text."""
asks_as_nobody_taught = in_file(
    "tokenizer_config.json",
    lambda fields: fields.update(chat_template=fields["chat_template"].replace("<|im_start|>assistant", "Answer:")),
)
"""A chat template that is not the model's."""


def bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies of its `If`s."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from bodies(attribute.g)


def instead(graph: onnx.GraphProto, name: str, *nodes: onnx.NodeProto) -> None:
    """Let everything that reads `name` read what the last of `nodes` makes of it."""
    for body in bodies(graph):
        for node in body.node:
            node.input[:] = [nodes[-1].output[0] if read == name else read for read in node.input]
    made = [place for place, node in enumerate(graph.node) if name in node.output]
    for number, node in enumerate(nodes, 1 + max(made, default=-1)):
        graph.node.insert(number, node)


def cache_off_by_one(subject: Subject) -> Subject:
    """A token after a cache stands one place too far."""
    return redrawn(subject, _shift)


def mask_dropped(subject: Subject) -> Subject:
    """Padding is read like text."""
    return redrawn(subject, _drop)


def _shift(proto: onnx.ModelProto) -> None:
    name, past = {"position_ids": ("position_ids", "past_key_values.0.key")}.get(
        proto.graph.input[2].name, ("decoder.positions", "past_key_values.0.decoder.key")
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    instead(
        proto.graph, name,
        helper.make_node("Shape", [past], ["before"], start=2, end=3),
        helper.make_node("Min", ["before", "one"], ["is later"]),
        helper.make_node("Add", [name, "is later"], ["wrong positions"]),
    )  # fmt: skip


def _drop(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "kept"))
    instead(proto.graph, "attention_mask", helper.make_node("Max", ["attention_mask", "kept"], ["no mask"]))


# Writers without a model

Rule = Callable[[Sequence[int]], Any]
"""All tokens so far -> float[WORDS], the scores of the next."""


def chance(tokens: Sequence[int]) -> Any:
    """Scores that the last two tokens decide; three letters ahead of all others, and the end not far behind."""
    random = np.random.default_rng([7, *tokens[-2:]])
    scores = random.normal(0, 1, WORDS)
    scores[random.choice(np.arange(33, 90), 3, replace=False)] += [9, 7, 6]
    scores[END] += 8 if random.random() < 1 / 8 else 0
    return scores


class Writer:
    """What the tasks that write text give, with `rule` in the place of a model, and bytes as tokens."""

    def __init__(self, rule: Rule = chance, *, cached: Rule | None = None, ends: Iterable[int] = (END,)) -> None:
        """`cached` is the rule when tokens are read one by one."""
        self._tokenizer = small_generators.tokenizer()
        self.asked: list[dict[str, Any]] = []
        self._answers = Answers(lambda: Steps(rule, cached or rule), self._tokenizer, frozenset(ends))

    def read(self, text: str) -> list[int]:
        """A text as tokens."""
        return encoded(self._tokenizer, [text])[0]

    def write(self, prompts: Sequence[str], **wishes: Any) -> list[Written]:
        """As the tasks do."""
        self.asked.append({"texts": list(prompts), **wishes})
        settings = Generation().with_(wishes)
        read = [self.read(text) for text in prompts]
        return self._answers.all(read, [settings.max_tokens] * len(read), settings, wishes.get("seed"))

    def write_summaries(self, codes: Sequence[str], **wishes: Any) -> list[Written]:
        """As the tasks do."""
        return self.write([f"# {code}" for code in codes], **wishes)

    def summarize(self, codes: Sequence[str], **wishes: Any) -> list[str]:
        """As the tasks do."""
        return [summaries.one_line(one.text) for one in self.write_summaries(codes, **wishes)]

    def passages(self, prompts: Sequence[str]) -> list[Written]:
        """As a model does that reads from left to right."""
        return [Written(ids[:1], ids[1:], text) for text in prompts for ids in [self.read(text)]]

    def scores(self, written: Iterable[Written], *, cached: bool = False) -> Iterator[Any]:
        """As the tasks do."""
        return self._answers.forced(written, cached)


class Steps:
    """Reading by a rule."""

    def __init__(self, rule: Rule, cached: Rule) -> None:
        self._rule, self._cached = rule, cached
        self._texts: list[list[int]] = []

    def first(self, prompts: Sequence[Sequence[int]]) -> Any:
        """The prompts at once."""
        self._texts = [list(prompt) for prompt in prompts]
        return np.array([self._rule(text) for text in self._texts], np.float32)

    def following(self, tokens: Sequence[int]) -> Any:
        """One token more of each."""
        for text, token in zip(self._texts, tokens, strict=True):
            text.append(token)
        return np.array([self._cached(text) for text in self._texts], np.float32)

    def keep(self, places: Sequence[int]) -> None:
        """Some of them."""
        self._texts = [self._texts[place] for place in places]

    def forced(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        """All tokens of an answer at once."""
        whole = [*prompt, *answer]
        rows = [self._rule(whole[:end]) for end in range(len(prompt), len(whole))]
        return np.array(rows, np.float32).reshape(-1, WORDS)


def writing(ours: Any, theirs: Any, *lines: str, examples: int = 400) -> Subject:
    """A subject whose artifact is the writer `ours` and whose float32 model is the writer `theirs`."""
    given = {"ours": ours, "theirs": theirs}
    corpus = texts(*(lines or (f"text {number:02}" for number in range(20))))
    return fake(corpus=corpus, open=lambda which, threads=None: given[which.digest], examples=examples)
