"""tasks/text_generation.py and tasks/text2text_generation.py on tiny graphs with real caches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_generators
from modelkit import graphs, runtime
from modelkit.errors import InputError, ManifestError, StageError
from modelkit.generation import caches, chat
from modelkit.tasks import text2text_generation, text_generation
from small_generators import END, OTHER_END, PAD

CAUSAL, SOURCE = "text-generation", "text2text-generation"
PROMPTS = ["hello", "a", "wörld and more", "def f(x):\n    return x", "日本"]
TEXTS = st.text(min_size=1, max_size=12).filter(lambda text: len(text.encode()) < 40)
both = pytest.mark.parametrize("kind", [CAUSAL, SOURCE])


def opened(folder: Path, kind: str, **options: Any) -> Any:
    task = text_generation if kind == CAUSAL else text2text_generation
    text = task.Text(max_tokens=options.pop("longest", 48))
    sessions = runtime.Sessions(graphs.parts(folder), 1)
    return task.open_(folder, sessions, task.Options(text, task.Generation(**{"max_tokens": 12, **options})))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    into = tmp_path_factory.mktemp("generation")
    return {CAUSAL: small_generators.causal(into / "causal"), SOURCE: small_generators.merged(into / "merged")}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {kind: opened(folder, kind) for kind, folder in folders.items()}


def changed(folder: Path, into: Path, **files: str) -> Path:
    """The model of `folder` with other files beside it; keys are names with `_` for `.`."""
    into.mkdir()
    for path in folder.iterdir():
        (into / path.name).symlink_to(path)
    for name, text in files.items():
        path = into / name.replace("__", ".")
        path.unlink(missing_ok=True)
        path.write_text(text)
    return into


def slowly(folder: Path, prompt: str, tokens: int) -> list[int]:
    """Greedy decoding without a cache: the whole text in each step."""
    session = runtime.Session(folder / "model.onnx", 1)
    ids = small_generators.tokenizer().encode(prompt).ids
    made: list[int] = []
    for _ in range(tokens):
        read = np.array([ids + made])
        feed = {
            "input_ids": read,
            "attention_mask": np.ones_like(read),
            "position_ids": np.arange(read.shape[1])[None],
            **caches.empty_pasts(session, 1),
        }
        made.append(int(session.run(feed, ["logits"])[0][0, -1].argmax()))
        if made[-1] in (END, OTHER_END):
            return made[:-1]
    return made


def slowly_from_source(folder: Path, prompt: str, tokens: int) -> list[int]:
    """The same with encoder and decoder: the first branch reads the whole answer in each step."""
    session = runtime.Session(folder / "model.onnx", 1)
    ids = np.array([small_generators.tokenizer().encode(prompt).ids])
    made: list[int] = []
    for _ in range(tokens):
        feed = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "decoder_input_ids": np.array([[PAD, *made]]),
            "use_cache_branch": np.array([False]),
            **caches.empty_pasts(session, 1),
        }
        made.append(int(session.run(feed, ["logits"])[0][0, -1].argmax()))
        if made[-1] in (END, OTHER_END):
            return made[:-1]
    return made


# The loop


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(("kind", "plain"), [(CAUSAL, slowly), (SOURCE, slowly_from_source)])
def test_greedy_text_with_a_cache_is_that_without_one(
    folders: dict[str, Path], models: dict[str, Any], kind: str, plain: Callable[..., list[int]], prompt: str
) -> None:
    wanted = small_generators.tokenizer().decode(plain(folders[kind], prompt, 12))
    assert models[kind].generate(prompt) == wanted


@both
@settings(deadline=None, max_examples=25)
@given(prompts=st.lists(TEXTS, min_size=1, max_size=5), temperature=st.sampled_from([0.0, 1.0]))
def test_each_prompt_of_a_batch_is_answered_as_if_alone(
    models: dict[str, Any], kind: str, prompts: list[str], temperature: float
) -> None:
    together = models[kind].generate(prompts, temperature=temperature, seed=7)
    assert together == [models[kind].generate(prompt, temperature=temperature, seed=7) for prompt in prompts]


@both
def test_texts_that_end_early_leave_the_others_as_they_are(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    # Every fifth token ends a text, so that rows of a batch end at different steps.
    config = {**json.loads((folders[kind] / "config.json").read_text()), "eos_token_id": list(range(0, 256, 5))}
    model = opened(changed(folders[kind], tmp_path / "short", config__json=json.dumps(config)), kind)
    prompts = [f"{word} {number}" for number in range(4) for word in PROMPTS]
    alone = [model.generate(prompt, temperature=1.0, seed=number) for number in range(4) for prompt in prompts]
    together = [text for number in range(4) for text in model.generate(prompts, temperature=1.0, seed=number)]
    assert together == alone
    assert len({len(text) for text in alone}) > 3


@both
@settings(deadline=None, max_examples=25)
@given(prompt=TEXTS, seed=st.integers(0, 99), stop=st.lists(st.text(min_size=1, max_size=2), max_size=2))
def test_streamed_pieces_joined_are_the_generated_text(
    models: dict[str, Any], kind: str, prompt: str, seed: int, stop: list[str]
) -> None:
    wishes = {"temperature": 1.5, "seed": seed, "stop": stop}
    pieces = list(models[kind].stream(prompt, **wishes))
    assert "".join(pieces) == models[kind].generate(prompt, **wishes)
    assert "" not in pieces


@both
def test_a_seed_gives_the_same_text_again_and_none_gives_others(models: dict[str, Any], kind: str) -> None:
    texts = [models[kind].generate("hello", temperature=2.0, seed=5) for _ in range(2)]
    assert texts[0] == texts[1]
    assert len({models[kind].generate("hello", temperature=2.0) for _ in range(8)}) > 1


@both
def test_no_more_tokens_are_made_than_allowed(models: dict[str, Any], kind: str) -> None:
    whole = models[kind].generate("hello", max_tokens=6)
    for most in range(1, 6):
        part = models[kind].generate("hello", max_tokens=most)
        assert whole.startswith(part.rstrip("\ufffd"))
        assert len(part.encode("utf-8", "replace")) <= 3 * most


@both
def test_text_ends_before_each_of_several_end_tokens(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    plain = slowly if kind == CAUSAL else slowly_from_source
    ids = plain(folders[kind], "hello", 12)
    for number in {ids[2], ids[5]}:
        config = {**json.loads((folders[kind] / "config.json").read_text()), "eos_token_id": [END, number]}
        model = opened(changed(folders[kind], tmp_path / str(number), config__json=json.dumps(config)), kind)
        assert model.generate("hello") == small_generators.tokenizer().decode(ids[: ids.index(number)])


@both
def test_text_ends_before_a_stop_string_of_the_manifest(folders: dict[str, Path], models: Any, kind: str) -> None:
    whole = models[kind].generate("hello")
    stop = next(whole[at : at + 2] for at in range(2, len(whole) - 1) if "\ufffd" not in whole[at : at + 2])
    assert opened(folders[kind], kind, stop=(stop,)).generate("hello") == whole[: whole.index(stop)]


@both
def test_no_prompts_have_no_answers(models: dict[str, Any], kind: str) -> None:
    assert models[kind].generate([]) == []


@both
@pytest.mark.parametrize("prompts", ["", ["a", ""]])
def test_an_empty_prompt_is_refused(models: dict[str, Any], kind: str, prompts: Any) -> None:
    with pytest.raises(InputError, match="is empty"):
        models[kind].generate(prompts)


@both
def test_what_is_no_text_is_refused(models: dict[str, Any], kind: str) -> None:
    with pytest.raises(InputError, match=r"expected prompts\[1\] to be a text, got 1$"):
        models[kind].generate(["a", 1])


WRONG = {"max_tokens": "a", "top_k": 1.5, "top_p": "b", "temperature": "hot", "stop": "end", "seed": -1, "max_token": 3}


@both
@pytest.mark.parametrize("name", WRONG)
def test_an_odd_argument_is_named(models: dict[str, Any], kind: str, name: str) -> None:
    for call in (models[kind].generate, models[kind].stream):
        with pytest.raises(InputError, match=rf"expected {name}(\[0\])? to be|there is no argument '{name}'"):
            call("a", **{name: WRONG[name]})


@both
def test_one_stop_string_without_brackets_is_refused_of_a_summary_too(folders: dict[str, Path], kind: str) -> None:
    with pytest.raises(InputError, match="expected stop to be a list of texts"):
        opened(folders[kind], kind, longest=400).summarize("a", stop="end")


@both
@pytest.mark.parametrize("prompts", [None, 1, b"a", {"a": "b"}, "\ud800", ["a", "\ud800"], [None]])
def test_prompts_of_another_kind_are_refused(models: dict[str, Any], kind: str, prompts: Any) -> None:
    with pytest.raises(InputError, match="expected prompts"):
        models[kind].generate(prompts)
    with pytest.raises(InputError, match="expected code"):
        models[kind].summarize(prompts)


@both
def test_a_batch_of_nothing_is_refused(models: dict[str, Any], kind: str) -> None:
    with pytest.raises(InputError, match="expected batch_size to be a whole number of at least 1, got 0"):
        models[kind].outputs(["a"], batch_size=0)


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ("hi", "expected messages to be a list of messages"),
        (None, "expected messages"),
        (["hi"], r"expected messages\[0\] to be a mapping of role and content"),
        ([{"role": "king", "content": "hi"}], r"messages\[0\]\['role'\] to be one of system, .* got 'king'"),
        ([{"content": "hi"}], r"messages\[0\]\['role'\] to be one of"),
        ([{"role": "user", "content": None}], r"messages\[0\]\['content'\] to be a text, got None"),
        ([{"role": "user", "content": "a"}, {"role": "user"}], r"messages\[1\]\['content'\]"),
    ],
)
def test_messages_that_are_none_are_refused(folders: dict[str, Path], tmp_path: Path, messages: Any, told: str) -> None:
    model = opened(changed(folders[CAUSAL], tmp_path / "chat", chat_template__jinja=TEMPLATE), CAUSAL)
    for call in (model.chat, model.stream_chat):
        with pytest.raises(InputError, match=told):
            call(messages)


@both
def test_a_stream_refuses_at_once_and_not_at_its_first_piece(models: dict[str, Any], kind: str) -> None:
    with pytest.raises(InputError, match="is empty"):
        models[kind].stream("")
    with pytest.raises(InputError, match="temperature"):
        models[kind].stream("a", temperature=-1.0)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_generators.split(tmp_path_factory.mktemp("split") / "model")


def test_a_model_in_three_graphs_writes_what_it_writes_in_one(split: Path, models: dict[str, Any]) -> None:
    model = opened(split, SOURCE)
    for wishes in ({}, {"temperature": 1.0, "seed": 3}):
        assert model.generate(PROMPTS, **wishes) == models[SOURCE].generate(PROMPTS, **wishes)
        assert model.generate(PROMPTS[0], **wishes) == models[SOURCE].generate(PROMPTS[0], **wishes)
    np.testing.assert_allclose(model.outputs(PROMPTS), models[SOURCE].outputs(PROMPTS), atol=1e-5)


def test_a_model_that_lacks_one_of_three_graphs_is_refused(split: Path) -> None:
    parts = {part: path for part, path in graphs.parts(split).items() if part != "encoder_model"}
    with pytest.raises(StageError, match="has no part 'model'"):
        text2text_generation.open_(split, runtime.Sessions(parts, 1), text2text_generation.Options())


# Length


def test_a_prompt_longer_than_the_manifest_allows_is_refused_with_counts(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"has 9 tokens, 1 more than the 8 that fit; shorten it, or raise"):
        opened(folders[CAUSAL], CAUSAL, longest=8).generate("a" * 9)


def test_a_prompt_longer_than_the_model_is_refused_whatever_the_manifest_says(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"has 64 tokens, 1 more than the 63 that fit; shorten it$"):
        opened(folders[CAUSAL], CAUSAL, longest=200).generate("a" * 64)


def test_text_ends_where_the_context_does(folders: dict[str, Path]) -> None:
    model = opened(folders[CAUSAL], CAUSAL, longest=60, max_tokens=50)
    prompt = "hello" * 12
    ids = slowly(folders[CAUSAL], prompt, 4)
    assert model.generate(prompt) == small_generators.tokenizer().decode(ids)


def test_a_source_text_longer_than_the_manifest_allows_is_refused(folders: dict[str, Path]) -> None:
    model = opened(folders[SOURCE], SOURCE, longest=5)
    for call in (model.generate, model.stream):
        with pytest.raises(
            InputError, match=r"has 14 tokens, 9 more than the 5 that fit; shorten it, or raise text\.max"
        ):
            call("hello and more")


def test_of_long_code_the_beginning_is_summarized_and_of_a_long_corpus_text_read(folders: dict[str, Path]) -> None:
    model = opened(folders[SOURCE], SOURCE, longest=5)
    assert model.summarize("hello and more") == model.summarize("hello")
    np.testing.assert_array_equal(model.outputs(["hello and more"]), model.outputs(["hello"]))


@both
def test_a_long_prompt_is_read_in_parts_without_changing_its_text(
    models: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = models[kind].generate(PROMPTS)
    monkeypatch.setattr(caches, "SCORES_AT_ONCE", 4 * small_generators.WORDS * len(PROMPTS) * 3)
    assert models[kind].generate(PROMPTS) == whole


# What checks compare


@both
@pytest.mark.parametrize("size", [1, 2, 32])
def test_outputs_are_the_scores_of_the_next_token_in_the_given_order(
    models: dict[str, Any], kind: str, size: int
) -> None:
    rows = models[kind].outputs(PROMPTS, batch_size=size)
    assert rows.shape == (len(PROMPTS), small_generators.WORDS)
    assert rows.dtype == np.float32
    for row, prompt in zip(rows, PROMPTS, strict=True):
        np.testing.assert_allclose(row, models[kind].outputs([prompt])[0], atol=1e-4)
    first = [models[kind].generate(prompt, max_tokens=1) for prompt in PROMPTS]
    assert [small_generators.tokenizer().decode([int(row.argmax())]) for row in rows] == first


@both
def test_outputs_of_no_texts_have_no_rows(models: dict[str, Any], kind: str) -> None:
    assert models[kind].outputs([]).shape == (0, small_generators.WORDS)


@both
def test_outputs_of_a_bare_string_are_refused(models: dict[str, Any], kind: str) -> None:
    with pytest.raises(InputError, match="list of texts"):
        models[kind].outputs("hello")


# Chats and summaries

TEMPLATE = "{% for message in messages %}{{ message.role[0] }}:{{ message.content }}\n{% endfor %}a:"


def test_a_chat_is_the_text_that_follows_its_prompt(folders: dict[str, Path], tmp_path: Path) -> None:
    model = opened(changed(folders[CAUSAL], tmp_path / "chat", chat_template__jinja=TEMPLATE), CAUSAL)
    messages = [{"role": "user", "content": "hi"}]
    assert model.chat(messages) == model.generate("u:hi\na:")
    assert "".join(model.stream_chat(messages)) == model.chat(messages)


def test_a_model_without_a_template_says_what_to_do_instead(models: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="no chat template; use generate"):
        models[CAUSAL].chat([{"role": "user", "content": "hi"}])


def test_a_chat_is_not_given_the_tokenizers_own_special_tokens(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(folders[CAUSAL], tmp_path / "chat", chat_template__jinja=TEMPLATE)
    (folder / "tokenizer.json").unlink()
    small_generators.tokenizer(end=True).save(str(folder / "tokenizer.json"))
    plain = changed(folders[CAUSAL], tmp_path / "plain")
    assert opened(folder, CAUSAL).chat([{"role": "user", "content": "hi"}]) == opened(plain, CAUSAL).generate(
        "u:hi\na:"
    )


@both
def test_a_summary_is_one_line_for_each_piece_of_code(folders: dict[str, Path], kind: str) -> None:
    # The examples of the plain prompt are longer than the tiny model.
    model = opened(folders[kind], kind)
    if kind == CAUSAL:
        with pytest.raises(InputError, match="more than the"):
            model.summarize("x = 1")
        return
    assert len(model.summarize("x = 1").splitlines()) <= 1
    assert model.summarize(["x = 1", "y"]) == [model.summarize("x = 1"), model.summarize("y")]


def test_a_chat_model_is_asked_for_a_summary_in_a_chat(folders: dict[str, Path], tmp_path: Path) -> None:
    template = "{{ messages[0].content[-12:-4] }}:"
    model = opened(changed(folders[CAUSAL], tmp_path / "chat", chat_template__jinja=template), CAUSAL)
    assert len(model.summarize(["x = 1", "y = 2"])) == 2
    assert chat.ChatTemplate.of(tmp_path / "chat")


def test_the_prefix_that_the_configuration_names_is_read_before_the_code(
    folders: dict[str, Path], tmp_path: Path, models: dict[str, Any]
) -> None:
    config = json.loads((folders[SOURCE] / "config.json").read_text())
    config["task_specific_params"] = {"summarization": {"prefix": "sum: "}}
    model = opened(changed(folders[SOURCE], tmp_path / "t5", config__json=json.dumps(config)), SOURCE)
    assert model.summarize("x = 1") == models[SOURCE].summarize("sum: x = 1")


@both
def test_no_code_has_no_summary(models: dict[str, Any], kind: str) -> None:
    with pytest.raises(InputError, match="no code to summarize"):
        models[kind].summarize([""])


# What stands beside the graph


@both
def test_a_model_whose_texts_never_end_is_not_built(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    folder = changed(folders[kind], tmp_path / "endless", config__json=json.dumps({"decoder_start_token_id": 1}))
    task = text_generation if kind == CAUSAL else text2text_generation
    for act in (lambda: task.verify(folder, None), lambda: opened(folder, kind)):
        with pytest.raises(StageError, match="nothing would end a text"):
            act()


def test_a_graph_of_another_task_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    config = json.dumps({**small_generators.CONFIG, "decoder_start_token_id": 1})
    with pytest.raises(StageError, match="decoder_input_ids"):
        opened(changed(folders[SOURCE], tmp_path / "one", config__json=config), CAUSAL)
    with pytest.raises(StageError, match="use_cache_branch"):
        opened(changed(folders[CAUSAL], tmp_path / "two", config__json=config), SOURCE)


@pytest.mark.parametrize("task", [text_generation, text2text_generation])
def test_a_length_without_room_for_a_token_is_refused(task: Any) -> None:
    with pytest.raises(ManifestError, match="max_tokens of at least"):
        task.Text(max_tokens=0)
