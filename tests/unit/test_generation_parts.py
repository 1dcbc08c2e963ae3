"""generation/: choosing tokens, writing text, rendering chats, cleaning summaries; against transformers' recordings."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_generators
from modelkit import conformance
from modelkit.errors import CheckError, InputError, ManifestError, ModelkitError, StageError
from modelkit.generation import summaries
from modelkit.generation.chat import ChatTemplate
from modelkit.generation.sampling import Sampler, narrowed, softmax
from modelkit.generation.settings import Facts, Generation
from modelkit.generation.text import Writer
from modelkit.vocabulary import Choice
from small_models import manifest_of

RECORDED = json.loads((Path(__file__).parents[1] / "references" / "generation.json").read_text("utf-8"))
TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end|>"}
SCORES = np.random.default_rng(1).normal(0, 2, 50)


# Choosing


@pytest.mark.parametrize("case", RECORDED["warpers"], ids=str)
def test_scores_are_narrowed_as_transformers_does(case: dict) -> None:
    wanted = [-np.inf if value is None else value for value in case["scores"]]
    ours = Generation(temperature=case["temperature"], top_k=case["top_k"], top_p=case["top_p"])
    np.testing.assert_allclose(narrowed(np.array(RECORDED["scores"]), ours), wanted, atol=1e-9)


def test_at_temperature_zero_the_likeliest_token_is_taken_and_of_equals_the_lowest() -> None:
    assert Sampler(Generation())(np.array([1.0, 3.0, 3.0, 2.0])) == 1


def test_a_cold_sampler_is_greedy() -> None:
    assert {Sampler(Generation(temperature=0.01), seed)(SCORES) for seed in range(20)} == {int(SCORES.argmax())}


def test_only_the_top_k_tokens_are_drawn() -> None:
    drawn = {Sampler(Generation(temperature=5.0, top_k=3), seed)(SCORES) for seed in range(200)}
    assert drawn == set(np.argsort(SCORES)[-3:].tolist())


def test_a_token_without_probability_is_never_drawn() -> None:
    scores = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf])
    assert {Sampler(Generation(temperature=1.0), seed)(scores) for seed in range(100)} == {1, 3}


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    scores = np.log([0.1, 0.2, 0.7])
    sampler = Sampler(Generation(temperature=1.0), 4)
    counts = np.bincount([sampler(scores) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(counts, softmax(scores), atol=0.03)


def test_a_seed_draws_the_same_tokens_again_and_another_seed_draws_others() -> None:
    def drawn(seed: int) -> list[int]:
        sampler = Sampler(Generation(temperature=2.0), seed)
        return [sampler(SCORES) for _ in range(20)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_scores_that_are_no_numbers_are_told() -> None:
    with pytest.raises(CheckError, match="not numbers"):
        Sampler(Generation())(np.array([1.0, np.nan]))


@pytest.mark.parametrize("task", ["text-generation", "text2text-generation"])
def test_the_checks_that_are_named_for_scores_that_are_no_numbers_are_run_for_every_task_that_writes(task: str) -> None:
    with pytest.raises(CheckError) as caught:
        Sampler(Generation())(np.array([np.nan]))
    named = (caught.value.hint or "").split("`")[1::2]
    assert named
    assert {*named} <= {*conformance.plan(replace(manifest_of(), task=Choice(task, None)))}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_tokens": 0}, "max_tokens of at least 1"),
        ({"temperature": -1.0}, "temperature from 0"),
        ({"temperature": float("nan")}, "temperature from 0"),
        ({"top_k": 0}, "top_k of at least 1"),
        ({"top_p": 0.0}, "top_p above 0"),
        ({"top_p": 1.1}, "top_p above 0"),
        ({"stop": ("",)}, "empty string"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict, told: str) -> None:
    with pytest.raises(ManifestError, match=told):
        Generation(**wrong)
    with pytest.raises(InputError, match=told):
        Generation().with_(wrong)


def test_what_a_call_leaves_out_stays_as_the_manifest_has_it() -> None:
    kept = Generation(max_tokens=9, stop=("x",)).with_({"temperature": 0.5, "stop": None, "seed": 3})
    assert kept == Generation(max_tokens=9, temperature=0.5, stop=("x",))


def test_one_stop_string_without_brackets_is_refused() -> None:
    with pytest.raises(InputError, match="list of texts"):
        Generation().with_({"stop": "end"})


# Writing


def writer(stop: tuple[str, ...] = ()) -> Writer:
    tokenizer = small_generators.tokenizer()
    return Writer(tokenizer.decode, stop)


def pieces(ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    out = writer(stop)
    made = []
    for token in ids:
        made.append(out.push(token))
        if out.stopped:
            break
    return [*made, out.end()]


def ids_of(text: str) -> list[int]:
    return small_generators.tokenizer().encode(text).ids


@given(text=st.text(max_size=30))
def test_pieces_joined_are_the_text_and_no_piece_holds_half_a_character(text: str) -> None:
    made = pieces(ids_of(text))
    assert "".join(made) == text
    assert all("\ufffd" not in piece for piece in made) or "\ufffd" in text


@given(ids=st.lists(st.integers(0, 255), max_size=20))
def test_bytes_that_are_no_text_decode_as_they_do_all_at_once(ids: list[int]) -> None:
    assert "".join(pieces(ids)) == small_generators.tokenizer().decode(ids)


def until(text: str, stops: tuple[str, ...]) -> str:
    """By the definition: the stop string that is complete first, read letter by letter."""
    for end in range(1, len(text) + 1):
        found = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)]
    return text


@settings(max_examples=300)
@given(text=st.text("abé", max_size=25), stops=st.lists(st.text("abé", min_size=1, max_size=4), max_size=3).map(tuple))
def test_text_ends_before_the_first_stop_string_wherever_the_tokens_end(text: str, stops: tuple[str, ...]) -> None:
    assert "".join(pieces(ids_of(text), stops)) == until(text, stops)


def test_a_stop_string_inside_one_token_is_cut_there() -> None:
    words = {1: "go on\n", 2: "\nand on"}
    out = Writer(lambda ids: "".join(words[number] for number in ids), ("\n\n",))
    assert [out.push(1), out.push(2), out.stopped, out.end()] == ["go on", "", True, ""]


def test_what_only_began_like_a_stop_string_is_shown_at_the_end() -> None:
    assert pieces(ids_of("a</"), ("</s>",)) == ["a", "", "", "</"]


def test_a_decoder_that_takes_a_character_back_does_not_change_what_was_shown() -> None:
    # As byte fallback does: a run of bytes with one that fits nowhere is no text at all.
    def decode(ids: list[int]) -> str:
        try:
            return bytes(ids).decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(ids)

    out = Writer(decode)
    assert [out.push(byte) for byte in b"\xc3\xa9\xff"] == ["", "é", ""]
    assert out.end() == "\ufffd"


# Chats


def template(text: str) -> ChatTemplate:
    return ChatTemplate(text, TOKENS, Path("chat_template.jinja"))


@pytest.mark.parametrize("case", RECORDED["chats"], ids=lambda case: f"{case['template']}-{len(case['messages'])}")
def test_chats_are_rendered_as_transformers_does(case: dict) -> None:
    made = template(RECORDED["templates"][case["template"]])
    assert made.render(case["messages"], add_generation_prompt=case["prompt"]) == case["text"]


def test_a_template_learns_the_day_it_is_given() -> None:
    made = template("{{ strftime_now('%d %B %Y') }}")
    assert made.render([{"role": "user", "content": ""}], today=date(2031, 1, 2)) == "02 January 2031"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7].content }}", "has no element 7"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{% for a in range(99999999) %}x{% endfor %}", "too large a number|Range too big"),
        ("{{ 'x' * 999999999 }}", "repeats"),
        ("{{ 9 ** 99999 }}", "power"),
        ("{{ '%999999999d' % 1 }}", "too widely"),
        ("{{ 'x'.ljust(999999999) }}", "too large a number"),
        ("{% for a in range(9999) %}{{ 'x' * 999 }}{% endfor %}", "without end"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{% include 'secret' %}", "loader"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_a_broken_or_hostile_template_is_one_clear_error(text: str, told: str) -> None:
    with pytest.raises(ModelkitError, match=told) as caught:
        template(text).render([{"role": "user", "content": "hi"}])
    assert str(caught.value).startswith("chat_template.jinja: the chat template fails: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{{ raise_exception('roles must alternate') }}", InputError),
        ("{{ messages[0].content + messages[0].name }}", InputError),
        ("{{ ''.__class__.__mro__ }}", StageError),
        ("{% if %}", StageError),
    ],
)
def test_messages_are_the_callers_fault_and_a_hostile_template_is_not(text: str, kind: type[ModelkitError]) -> None:
    with pytest.raises(kind):
        template(text).render([{"role": "user", "content": "hi"}])


def test_a_chat_of_no_messages_is_refused() -> None:
    with pytest.raises(InputError, match="no messages"):
        template("x").render([])


def test_the_file_of_its_own_wins_and_tokens_come_from_the_configuration(tmp_path: Path) -> None:
    config = {"chat_template": "old", "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = ChatTemplate.of(tmp_path)
    assert found
    assert found.text == "old"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}")
    found = ChatTemplate.of(tmp_path)
    assert found
    assert found.render([{"role": "user", "content": "x"}]) == "<s></s>False"


def test_of_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    found = ChatTemplate.of(tmp_path)
    assert found
    assert found.text == "plain"


def test_a_model_without_a_template_has_none(tmp_path: Path) -> None:
    assert ChatTemplate.of(tmp_path) is None


def test_a_template_that_does_not_parse_is_refused_before_anything_is_built() -> None:
    with pytest.raises(StageError, match="does not parse"):
        template("{% for %}").refuse_broken()


# Summaries


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("Returns the sum.", "Returns the sum."),
        ("Summary: This function returns the sum. It is pure.", "Returns the sum."),
        ("```\nsorts a list\n```", "Sorts a list"),
        ('"Adds e.g. two numbers."', "Adds e.g. two numbers."),
        ("Here is a summary of the code:\n\n**Sorts a list.**", "Sorts a list."),
        ("- reads a file\n- closes it", "Reads a file"),
        ("This Python function  sorts\ta list - ", "Sorts a list"),
        ("The code snippet computes x: ", "Computes x"),
        ("1. opens the door", "Opens the door"),
        ("parse_size(text) reads a size", "parse_size(text) reads a size"),
        ("这段代码计算总和。", "这段代码计算总和。"),
        ("Summary:", ""),
        (" \n\u2028\n", ""),
        ("", ""),
    ],
)
def test_an_answer_becomes_one_bare_line(answer: str, line: str) -> None:
    assert summaries.one_line(answer) == line


WORDS = ("Summary:", "This function", "returns", "Here is", "x", "ß", ". ", "- ", "1. ", ":", " ")
PARTS = st.sampled_from([*WORDS, "`", '"', "```", "**", "\n", "\u2028"])


@settings(max_examples=500)
@given(answer=st.one_of(st.text(), st.lists(PARTS, max_size=12).map("".join)))
def test_a_summary_is_at_most_one_line_and_cleaning_it_again_changes_nothing(answer: str) -> None:
    line = summaries.one_line(answer)
    assert len(line.splitlines()) <= 1
    assert line == line.strip()
    assert summaries.one_line(line) == line


@pytest.mark.parametrize("code", ["def f(x):\n    return {'a': x}", "{code} {0}"])
def test_a_question_holds_the_code_as_it_is(code: str) -> None:
    assert code in summaries.message(code)[0]["content"]
    assert code in summaries.prompt(code)


# Facts


def facts(folder: Path, config: dict, generation: dict | None = None) -> Facts:
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return Facts.of(folder)


def test_the_ends_of_a_text_come_from_the_generation_configuration_first(tmp_path: Path) -> None:
    assert facts(tmp_path, {"eos_token_id": 1}, {"eos_token_id": [2, 3]}).ends() == {2, 3}


def test_the_configuration_of_the_model_is_the_second_place(tmp_path: Path) -> None:
    assert facts(tmp_path, {"eos_token_id": 1}, {"pad_token_id": 0}).ends() == {1}


@pytest.mark.parametrize("wrong", [None, [], ["</s>"], True])
def test_a_model_whose_texts_never_end_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(StageError, match="nothing would end a text"):
        facts(tmp_path, {"eos_token_id": wrong}).ends()


def test_a_decoder_that_begins_with_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing to begin with"):
        facts(tmp_path, {}).start()


def test_a_configuration_that_is_no_object_is_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no JSON object"):
        facts(tmp_path, {}, [])  # type: ignore[arg-type]
