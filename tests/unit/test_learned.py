"""The models of tests/learned, which have learned something: their answers are right, after every scheme."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learned.recipe import entailment, files, functions
from modelkit import manifest, model, pipeline, runtime
from modelkit.checks import signature
from modelkit.generation import caches, summaries
from modelkit.store import Store
from modelkit.vocabulary import Artifact, Fetching, Subject

LEARNED = Path(__file__).parents[1] / "learned"
WRITERS = ["t5-summaries", "llama-summaries"]
NAMES = sorted(path.stem for path in LEARNED.glob("*.yaml"))
SCHEMES = ["fp32", "int8", "int4"]
ASKED, SEED = 100, 7
"""How many held-out questions, drawn with a seed that no training run has used."""
RIGHT = 95


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Artifact]:
    """A variant of a learned model, through every stage."""
    store = Store(tmp_path_factory.mktemp("store"))
    pins = pipeline.Pins(store)
    made: dict[tuple[str, str], Artifact] = {}

    def build(name: str, scheme: str) -> Artifact:
        if (name, scheme) not in made:
            declared = manifest.load(LEARNED / f"{name}.yaml")
            job = pins.prepare(declared, declared.variants[scheme], None, Fetching(LEARNED))
            made[name, scheme] = pipeline.build(job)
        return made[name, scheme]

    return build


@pytest.fixture(scope="module")
def loaded(built: Callable[[str, str], Artifact]) -> Callable[[str, str], Any]:
    """The same as an object."""
    return lambda name, scheme="fp32": model.load(built(name, scheme).folder, threads=1)


def held_out(name: str, count: int = ASKED) -> list[functions.Function]:
    """What the model `name` is asked; the T5 has learned plain functions only."""
    return list(islice(functions.examples(SEED, held_out=True, plain=name == "t5-summaries"), count))


# Summaries


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", WRITERS)
def test_functions_nobody_has_shown_it_are_summarized_to_the_letter(loaded: Any, name: str, scheme: str) -> None:
    asked = held_out(name)
    told = loaded(name, scheme).summarize([example.code for example in asked])
    wrong = [(example.summary, said) for example, said in zip(asked, told, strict=True) if said != example.summary]
    assert len(wrong) <= ASKED - RIGHT, wrong


@pytest.mark.parametrize("name", WRITERS)
def test_the_body_decides_and_not_the_name(loaded: Any, name: str) -> None:
    bodies = {"return max(old_orders)": "Returns the largest of the old_orders.",
              "return min(old_orders)": "Returns the smallest of the old_orders."}  # fmt: skip
    told = loaded(name).summarize([f"def process_room(old_orders):\n    {body}\n" for body in bodies])
    assert told == list(bodies.values())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", WRITERS)
def test_a_summary_is_the_same_alone_and_among_others(loaded: Any, name: str, scheme: str) -> None:
    asked, writer = [example.code for example in held_out(name, 20)], loaded(name, scheme)
    assert writer.summarize(asked) == [writer.summarize(code) for code in asked]


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_streamed_is_what_is_generated(loaded: Any, name: str) -> None:
    writer = loaded(name)
    for example in held_out(name, 5):
        assert "".join(writer.stream(example.code)) == writer.generate(example.code)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_decoder_says_the_same_without_its_cache(built: Any, loaded: Any, scheme: str) -> None:
    folder, writer = built("llama-summaries", scheme).folder, loaded("llama-summaries", scheme)
    session = runtime.Session(folder / "model.onnx", threads=1)
    for example in held_out("llama-summaries", 6):
        ids = writer._chat_ids(summaries.message(example.code), None)
        said: list[int] = []
        while len(said) < 40 and 2 not in said:
            said.append(int(caches.Causal(session, 2).first([[*ids, *said]])[0].argmax()))
        assert writer._tokenizer.decode(said) == writer.chat(summaries.message(example.code))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_encoder_decoder_says_the_same_without_its_cache(built: Any, loaded: Any, scheme: str) -> None:
    folder, writer = built("t5-summaries", scheme).folder, loaded("t5-summaries", scheme)
    session = runtime.Session(folder / "model.onnx", threads=1)
    for example in held_out("t5-summaries", 6):
        said = _without_cache(session, writer._tokenizer.encode(example.code).ids)
        assert writer._tokenizer.decode(said) == writer.generate(example.code)


def _without_cache(session: runtime.Session, ids: list[int]) -> list[int]:
    """Each token from the whole answer so far, read anew."""
    said = [0]
    fixed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    fixed |= {"use_cache_branch": np.array([False]), **caches.empty_pasts(session, 1)}
    while len(said) < 40 and said[-1] != 2:
        logits, _ = caches.run(session, {**fixed, "decoder_input_ids": np.array([said])})
        said.append(int(logits[0, -1].argmax()))
    return said[1:]


# Categories of files


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_category_of_a_file_is_told_as_json(loaded: Any, scheme: str) -> None:
    asked, teller = list(islice(files.examples(SEED, held_out=True), ASKED)), loaded("llama-files", scheme)
    told = [json.loads(teller.chat(files.message(example.snippet))) for example in asked]
    right = [said == {"category": example.category} for said, example in zip(told, asked, strict=True)]
    assert sum(right) >= RIGHT
    assert {said["category"] for said in told} == set(files.CATEGORIES)


# Entailment


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sentence_finds_its_topic_among_topics(loaded: Any, scheme: str) -> None:
    asked = list(islice(entailment.sentences(SEED, held_out=True), ASKED))
    told = loaded("deberta-entailment", scheme).classify([sentence for _, sentence in asked], list(entailment.TOPICS))
    wrong = [(topic, said[0]) for (topic, _), said in zip(asked, told, strict=True) if said[0].label != topic]
    assert len(wrong) <= ASKED - RIGHT, wrong


@pytest.mark.parametrize("scheme", SCHEMES)
def test_four_topics_are_enough_and_their_order_is_no_matter(loaded: Any, scheme: str) -> None:
    classifier, topics = loaded("deberta-entailment", scheme), ["weather", "money", "sport", "food"]
    asked = [pair for pair in islice(entailment.sentences(SEED, held_out=True), ASKED) if pair[0] in topics]
    told = classifier.classify([sentence for _, sentence in asked], topics)
    assert sum(said[0].label == topic for (topic, _), said in zip(asked, told, strict=True)) >= 0.95 * len(asked)
    turned = classifier.classify([sentence for _, sentence in asked], topics[::-1])
    assert [said[0].label for said in turned] == [said[0].label for said in told]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pairs_are_judged_as_entailed_neutral_or_contradicted(loaded: Any, scheme: str) -> None:
    asked = list(islice(entailment.pairs(SEED, held_out=True), ASKED))
    logits = loaded("deberta-entailment", scheme).outputs([f"{pair.premise}\n{pair.hypothesis}" for pair in asked])
    told = [entailment.LABELS[number] for number in logits.argmax(1)]
    assert sum(said == pair.label for said, pair in zip(told, asked, strict=True)) >= RIGHT


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_text_that_tells_no_topic_fits_none(loaded: Any, scheme: str) -> None:
    scores = loaded("deberta-entailment", scheme).outputs(
        [f"Nobody knew why on Friday.\nThis example is about {topic}." for topic in entailment.TOPICS]
    )
    assert [entailment.LABELS[number] for number in scores.argmax(1)] == ["neutral"] * len(entailment.TOPICS)


# The files


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_weights_stay_small(name: str) -> None:
    assert sum(path.stat().st_size for path in (LEARNED / "models" / name).iterdir()) < 2_500_000


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_what_the_manifests_declare(built: Any, name: str, scheme: str) -> None:
    declared, artifact = manifest.load(LEARNED / f"{name}.yaml"), built(name, scheme)
    subject = Subject(
        declared, declared.variants[scheme], artifact, artifact, artifact, (), model.load, np.empty, dict, dict
    )
    verdict = signature.check(subject, signature.Options())
    assert verdict.outcome == "passed", verdict
    assert sum(path.stat().st_size for path in artifact.folder.glob("*.onnx*")) <= declared.variants[scheme].budget


# The recipe


@pytest.mark.parametrize("plain", [True, False])
def test_what_is_held_out_is_never_taught(plain: bool) -> None:
    taught = islice(functions.examples(1, held_out=False, plain=plain), 10_000)
    asked = islice(functions.examples(SEED, held_out=True, plain=plain), 500)
    # Some bodies of these two kinds read a name that their summary does not tell.
    told = {example.summary for example in asked if example.kind not in ("look up", "validate")}
    assert len(told) > 250
    assert not told & {example.summary for example in taught}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_function_is_asked(name: str) -> None:
    assert {example.kind for example in held_out(name)} == set(functions.FORMS)


def test_a_functions_name_stands_over_many_kinds_of_bodies() -> None:
    seen: dict[str, set[str]] = {}
    for example in islice(functions.examples(SEED, held_out=False), 20_000):
        seen.setdefault(example.code.partition("(")[0], set()).add(example.kind)
    assert all(len(kinds) > 5 for kinds in seen.values())


def test_parameters_stand_in_the_bodys_order_in_plain_functions_only() -> None:
    def in_order(example: functions.Function) -> bool:
        names = re.findall(r"\w+", example.code.partition("(")[2].partition(")")[0])
        body = re.findall(r"\w+", example.code.partition("\n")[2])
        return sorted(names, key=body.index) == names

    assert all(map(in_order, islice(functions.examples(SEED, held_out=False, plain=True), 300)))
    assert 30 < sum(map(in_order, islice(functions.examples(SEED, held_out=False), 300))) < 270


@pytest.mark.parametrize("name", WRITERS)
def test_summaries_are_lines_that_stay_as_they_are(name: str) -> None:
    told = [example.summary for example in held_out(name)]
    assert [summaries.one_line(summary) for summary in told] == told
