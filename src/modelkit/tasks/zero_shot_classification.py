"""`zero-shot-classification`: texts against labels nobody trained for, by a model that judges whether one sentence
follows from another (Yin et al. 2019, arXiv:1909.00161)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from modelkit import arguments
from modelkit.errors import InputError, ManifestError, StageError
from modelkit.json_objects import read_object
from modelkit.tokenizer import (
    COMPANIONS,
    in_batches,
    pad_id,
    padded,
    read_tokenizer,
    refuse_short,
    refuse_stranger,
)
from modelkit.vocabulary import WHOLE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from modelkit.runtime import Session, Sessions

    Floats = npt.NDArray[np.float32]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
SLOT = "{}"
"""Where the label goes in a hypothesis."""
GIVES = ("logits", "labels")
CONSUMER_FILES = (*COMPANIONS, "config.json")
"""What a consumer of the model needs beside it; config.json says which of the logits is which answer."""


@dataclass(frozen=True)
class Text:
    """`max_tokens` counts both texts and the special tokens; a longer pair loses the end of its premise."""

    max_tokens: int = 512

    def __post_init__(self) -> None:
        """Refuse a length that leaves less than a token of either text beside three special ones."""
        refuse_short(self.max_tokens, 5)


@dataclass(frozen=True)
class Options:
    """The manifest keys this task adds. The last two are what `classify` takes when it is not told otherwise."""

    text: Text = field(default_factory=Text)
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False

    def __post_init__(self) -> None:
        """Refuse a template that would give every label one hypothesis."""
        if SLOT not in self.hypothesis_template:
            raise ManifestError(f"expected {SLOT} in hypothesis_template, where the label goes")


class Scored(NamedTuple):
    """One label and how well it fits, between 0 and 1."""

    label: str
    score: float


class Classifier:
    """A loaded zero-shot classifier."""

    def __init__(self, folder: Path, session: Session, options: Options) -> None:
        if set(session.inputs) - set(INPUTS) or OUTPUT not in session.outputs:
            raise StageError(
                f"the model takes {', '.join(session.inputs)} and gives {', '.join(session.outputs)}",
                where=folder,
                hint=f"zero-shot-classification feeds {', '.join(INPUTS)} and reads {OUTPUT}",
            )
        self._session, self._options = session, options
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._room = options.text.max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=True)
        self._entailment = entailment(folder)

    # A text is a sequence of texts too, so mypy sees an overlap; at run time the first is asked first.
    @overload
    def classify(  # type: ignore[overload-overlap]
        self, texts: str, labels: Sequence[str], *,
        multi_label: bool | None = None, hypothesis_template: str | None = None, batch_size: int = 32,
    ) -> list[Scored]: ...  # fmt: skip

    @overload
    def classify(
        self, texts: Sequence[str], labels: Sequence[str], *,
        multi_label: bool | None = None, hypothesis_template: str | None = None, batch_size: int = 32,
    ) -> list[list[Scored]]: ...  # fmt: skip

    def classify(
        self,
        texts: str | Sequence[str],
        labels: Sequence[str],
        *,
        multi_label: bool | None = None,
        hypothesis_template: str | None = None,
        batch_size: int = 32,
    ) -> list[Scored] | list[list[Scored]]:
        """For a text its labels, best first; for a list of texts a list of those.

        The scores of a text sum to one; with `multi_label`, or a single label, each label is judged by itself, as
        entailed or contradicted. Both are computed as the zero-shot pipeline of transformers does, which takes the
        first logit for the contradiction, or the last one where the first is the entailment. A text too long to be read
        together with a hypothesis is cut at its end, a hypothesis never.
        Raises `InputError` for labels in one string, an empty list, a template without `{}`, and a label that leaves no
        room for a text. A label may be there twice, or be empty, as in the pipeline.
        """
        many = arguments.texts("texts", [texts] if isinstance(texts, str) else texts)
        template = self._options.hypothesis_template
        if hypothesis_template is not None:
            template = arguments.text("hypothesis_template", hypothesis_template)
        named = arguments.texts("labels", labels, "label")
        _refuse_empty(many, named, template)
        hypotheses = [template.replace(SLOT, label) for label in named]
        self._refuse_long(named, hypotheses)
        most = arguments.whole("batch_size", batch_size, least=1)
        logits = self._judge([(text, hypothesis) for text in many for hypothesis in hypotheses], most)
        alone = self._options.multi_label if multi_label is None else arguments.flag("multi_label", multi_label)
        scores = self._scores(logits.reshape(len(many), len(named), -1), alone or len(named) == 1)
        ranked = [_ranked(named, row) for row in scores]
        return ranked[0] if isinstance(texts, str) else ranked

    def outputs(self, texts: Sequence[str], *, batch_size: int = 32) -> Floats:
        """What the checks compare: float32[len(texts), labels], the logits of pairs written as one text each.

        The hypothesis is a text's last line, the premise all before it. Raises `InputError` for a text of one line.
        """
        pairs = [_pair(text) for text in arguments.texts("texts", texts)]
        return self._judge(pairs, arguments.whole("batch_size", batch_size, least=1))

    @property
    def width(self) -> int:
        """How many logits there are for a pair."""
        return int(self._session.outputs[OUTPUT][1][-1])

    def fits(self, label: str) -> bool:
        """Whether the hypothesis of `label`, by the manifest's template, leaves room for a token of a text."""
        return self._length(self._options.hypothesis_template.replace(SLOT, label)) < self._room

    def _length(self, hypothesis: str) -> int:
        return len(self._tokenizer.encode(hypothesis, add_special_tokens=False).ids)

    def _refuse_long(self, labels: Sequence[str], hypotheses: Sequence[str]) -> None:
        # The pipeline reads pairs of any length instead, so that one label can take all memory.
        for label, hypothesis in zip(labels, hypotheses, strict=True):
            if (count := self._length(hypothesis)) >= self._room:
                told = f"the hypothesis of the label {arguments.shown(label)} has {count} tokens"
                hint = "shorten the label or the hypothesis template"
                raise InputError(f"{told}, {self._room - 1} leave room for a text", hint=hint)

    def _scores(self, logits: Any, alone: bool) -> Any:
        """float32[texts, labels, answers] -> float64[texts, labels]"""
        if not alone:
            return _softmax(logits[..., self._entailment])
        contradiction = 0 if self._entailment else -1
        return _softmax(logits[..., [contradiction, self._entailment]])[..., 1]

    def _judge(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> Floats:
        """Pairs of like length share a batch, so that little is spent on padding; rows come back in the given order."""
        import numpy as np  # noqa: PLC0415

        encoded = list(self._encoded(pairs))
        rows = np.empty((len(encoded), self.width), np.float32)
        for batch in in_batches([len(one.ids) for one in encoded], batch_size):
            rows[batch] = self._run([encoded[row] for row in batch])
        return rows

    def _encoded(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Any]:
        """Each text is tokenized once, however many pairs it is in; the premise alone is cut (`only_first`)."""
        from tokenizers import Encoding  # noqa: PLC0415

        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        known = dict(zip(texts, self._tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True))
        for first, second in pairs:
            premise, hypothesis = known[first], known[second]
            room = self._room - len(hypothesis)
            # Of the checks' own pairs, a hypothesis that leaves no room stays whole, and so does its premise.
            if 0 < room < len(premise):
                premise = Encoding.merge([premise])
                premise.truncate(room)
            yield self._tokenizer.post_process(premise, hypothesis)

    def _run(self, batch: Sequence[Any]) -> Any:
        ids, mask = padded([one.ids for one in batch], pad_id(self._tokenizer))
        types, _ = padded([one.type_ids for one in batch], 0)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return self._session.run({name: feed[name] for name in self._session.inputs}, [OUTPUT])[0]


def open_(folder: Path, sessions: Sessions, options: Options) -> Classifier:
    """The model in `folder` as an object. Raises `StageError` when its tokenizer or its labels cannot be read."""
    return Classifier(folder, sessions[WHOLE], options)


def verify(folder: Path, rows: int | None) -> None:
    """Refuse a stranger's tokenizer (`rows`: of the embedding table), and a model without an answer for entailment."""
    refuse_stranger(folder, rows)
    entailment(folder)


def entailment(folder: Path) -> int:
    """Which logit says that the hypothesis follows, by config.json's label2id or id2label.

    Raises `StageError` when config.json is missing or names no such label.
    """
    found = _labels(read_object(folder / "config.json", needed=True))
    for label, number in found.items():
        if label.lower().startswith("entail"):
            return number
    raise StageError(
        f"config.json names no label for entailment; it has {', '.join(found) or 'none'}",
        hint="zero-shot classification needs a model of natural language inference",
    )


def _labels(config: dict[str, Any]) -> dict[str, int]:
    try:
        if config.get("label2id"):
            return {str(label): int(number) for label, number in config["label2id"].items()}
        return {str(label): int(number) for number, label in (config.get("id2label") or {}).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise StageError(
            f"the labels of config.json cannot be read ({error})", hint="fetch the source again"
        ) from error


def _refuse_empty(texts: Sequence[str], labels: Sequence[str], template: str) -> None:
    if not labels or not texts:
        raise InputError(f"classify needs at least one {'text' if labels else 'label'}")
    if SLOT not in template:
        raise InputError(f"the hypothesis template {template!r} has no {SLOT}, where the label goes")


def _pair(text: str) -> tuple[str, str]:
    premise, line_end, hypothesis = text.rpartition("\n")
    if not line_end:
        raise InputError(
            f"the text {text[:40]!r} is no pair", hint="write the premise, a line end, and the hypothesis as last line"
        )
    return premise, hypothesis


def _softmax(logits: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _ranked(labels: Sequence[str], scores: Any) -> list[Scored]:
    """Equally good labels keep their order."""
    order = sorted(range(len(labels)), key=lambda place: -scores[place])
    return [Scored(labels[place], float(scores[place])) for place in order]
