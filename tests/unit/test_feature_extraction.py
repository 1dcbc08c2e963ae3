"""tasks/feature_extraction.py: texts in, one vector each out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

import small_models
import stand_ins
from modelkit import manifest, runtime
from modelkit.errors import InputError, ManifestError, StageError
from modelkit.model import CARD, card, read_card
from modelkit.tasks import feature_extraction
from modelkit.tasks.feature_extraction import Embedder, Options, Text
from modelkit.tokenizer import MOST_TOKENS, in_batches
from modelkit.vocabulary import Choice

TEXTS = st.lists(st.lists(st.sampled_from([*stand_ins.WORDS, "x!", "é"]), max_size=40).map(" ".join), max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source and converted model in one, which is all that an embedder reads."""
    folder = tmp_path_factory.mktemp("feature-extraction")
    made = small_models.exported(stand_ins.bert(folder / "source"), folder / "made")
    (folder / "source" / "tokenizer.json").rename(made / "tokenizer.json")
    return made


def embedder(folder: Path, **text: Any) -> Embedder:
    options = Options(Text(**{"max_tokens": 32, **text}))
    return feature_extraction.open_(folder, runtime.Sessions({"model": folder / "model.onnx"}, 1), options)


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Embedder:
    return embedder(folder)


def with_tokenizer(folder: Path, into: Path, tokenizer: Tokenizer | bytes) -> Path:
    into.mkdir()
    for path in folder.iterdir():
        (into / path.name).symlink_to(path)
    (into / "tokenizer.json").unlink()
    if isinstance(tokenizer, bytes):
        (into / "tokenizer.json").write_bytes(tokenizer)
    else:
        tokenizer.save(str(into / "tokenizer.json"))
    return into


def words(*extra: str) -> Tokenizer:
    """A tokenizer that adds nothing to a text; `extra` come first."""
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*extra, "a", "cat"])}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


# Embedding


@settings(deadline=None, max_examples=40)
@given(texts=TEXTS)
def test_each_text_gets_the_vector_it_gets_alone(tiny: Embedder, texts: list[str]) -> None:
    together = tiny.embed(texts)
    assert together.shape == (len(texts), 32)
    assert together.dtype == np.float32
    for row, text in enumerate(texts):
        np.testing.assert_allclose(together[row], tiny.embed([text])[0], atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(texts=TEXTS, size=st.integers(1, 13))
def test_the_size_of_a_batch_changes_nothing(tiny: Embedder, texts: list[str], size: int) -> None:
    np.testing.assert_allclose(tiny.embed(texts, batch_size=size), tiny.embed(texts), atol=1e-5)


def test_no_texts_give_no_rows(tiny: Embedder) -> None:
    found = tiny.embed([])
    assert (found.shape, found.dtype) == ((0, 32), np.float32)


def test_vectors_have_unit_length(tiny: Embedder) -> None:
    np.testing.assert_allclose(np.linalg.norm(tiny.embed(["", "a cat", "the dog ran"]), axis=1), 1, atol=1e-6)


def test_any_iterable_sequence_of_texts_will_do(tiny: Embedder) -> None:
    np.testing.assert_array_equal(tiny.embed(("a cat", "a dog")), tiny.embed(["a cat", "a dog"]))


def test_the_caller_keeps_its_list(tiny: Embedder) -> None:
    texts = ["the cat sat on the mat", "a"]
    tiny.embed(texts)
    assert texts == ["the cat sat on the mat", "a"]


def test_width_is_that_of_the_model(tiny: Embedder) -> None:
    assert tiny.width == 32


def test_text_is_cut_at_the_manifests_length(folder: Path) -> None:
    short = embedder(folder, max_tokens=6)
    # Two of the six are [CLS] and [SEP].
    np.testing.assert_array_equal(short.embed(["a cat sat on the mat under a tree"]), short.embed(["a cat sat on"]))
    assert not np.allclose(short.embed(["a cat sat"]), short.embed(["a cat sat on"]), atol=1e-3)


def test_the_tokenizers_own_length_and_padding_do_not_count(folder: Path, tmp_path: Path) -> None:
    tokenizer = stand_ins.tokenizer()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=64)
    stored = embedder(with_tokenizer(folder, tmp_path / "stored", tokenizer))
    texts = ["a cat sat on the mat", "a dog"]
    np.testing.assert_array_equal(stored.embed(texts), embedder(folder).embed(texts))


def test_text_without_any_token_has_a_finite_vector(folder: Path, tmp_path: Path) -> None:
    bare = embedder(with_tokenizer(folder, tmp_path / "bare", words()))
    for texts in ([""], ["", "a cat"]):
        assert np.isfinite(bare.embed(texts)).all()


def test_a_lone_surrogate_is_no_crash_of_ours(tiny: Embedder) -> None:
    with pytest.raises(InputError, match=r"texts\[0\] to be a text, its character 1 is the lone surrogate '.ud800'"):
        tiny.embed(["\ud800"])


@pytest.mark.parametrize(("tokens", "pad"), [(("[PAD]",), 0), (("a0", "[PAD]"), 1), (("a0", "<pad>"), 1), (("a0",), 0)])
def test_the_pad_is_the_tokenizers_own_or_zero(folder: Path, tmp_path: Path, tokens: tuple[str, ...], pad: int) -> None:
    made = embedder(with_tokenizer(folder, tmp_path / "pad", words(*tokens)))
    seen = []
    run = made._session.run
    made._session.run = lambda feed, outputs: seen.append(feed["input_ids"]) or run(feed, outputs)  # type: ignore[method-assign]
    made.embed(["a", "a cat a"])
    cat = len(tokens)
    np.testing.assert_array_equal(seen[0], [[cat, pad, pad], [cat, cat + 1, cat]])


def test_a_bert_with_a_unigram_tokenizer_is_served_too(folder: Path, tmp_path: Path) -> None:
    from stand_ins.xlm_roberta import unigram

    made = embedder(with_tokenizer(folder, tmp_path / "unigram", unigram()))
    texts = ["the cat sat on the mat", "a dog", "", "xyz! é"]
    for row, text in zip(made.embed(texts), texts, strict=True):
        np.testing.assert_allclose(row, made.embed([text])[0], atol=1e-5)
    assert made._tokenizer.encode("the cat").tokens == ["<s>", "▁the", "▁cat", "</s>"]


# Prefixes

E5 = (("query", "the cat "), ("passage", "a dog "))


@pytest.fixture(scope="module")
def prefixed(folder: Path) -> Embedder:
    return embedder(folder, prefixes=E5)


def test_a_kind_puts_its_prefix_before_every_text(prefixed: Embedder, tiny: Embedder) -> None:
    for kind, prefix in E5:
        expected = tiny.embed([f"{prefix}sat", f"{prefix}ran on"])
        np.testing.assert_array_equal(prefixed.embed(["sat", "ran on"], kind=kind), expected)


def test_without_a_kind_it_is_the_first_one(prefixed: Embedder) -> None:
    expected = prefixed.embed(["sat"], kind="query")
    np.testing.assert_array_equal(prefixed.embed(["sat"]), expected)
    np.testing.assert_array_equal(prefixed.outputs(["sat"], batch_size=1), expected)
    assert not np.allclose(prefixed.embed(["sat"], kind="passage"), expected, atol=1e-3)


def test_a_prefix_counts_towards_the_length(folder: Path) -> None:
    short = embedder(folder, max_tokens=6, prefixes=E5)
    np.testing.assert_array_equal(short.embed(["sat on the mat"]), short.embed(["sat on"]))


@pytest.mark.parametrize("texts", [["sat"], []])
def test_an_unknown_kind_is_told_with_those_there_are(prefixed: Embedder, texts: list[str]) -> None:
    with pytest.raises(InputError, match="no texts of the kind 'document'; its kinds are query, passage"):
        prefixed.embed(texts, kind="document")


def test_a_model_without_prefixes_knows_no_kind(tiny: Embedder) -> None:
    assert tiny.kinds == ()
    with pytest.raises(InputError, match="no texts of the kind 'query'; all texts are alike to it"):
        tiny.embed(["sat"], kind="query")


def test_which_prefix_is_first_survives_the_card(tmp_path: Path) -> None:
    for number, pairs in enumerate((E5, E5[::-1])):
        (tmp_path / str(number)).mkdir()
        options = Options(Text(prefixes=pairs))
        (tmp_path / str(number) / CARD).write_text(card("tiny", Choice("feature-extraction", options)))
        assert read_card(tmp_path / str(number)).options == options


def test_a_manifest_gives_prefixes_as_a_mapping_in_its_order(tmp_path: Path) -> None:
    path = stand_ins.manifest(tmp_path)
    text = path.read_text().replace("normalize: true}", 'normalize: true, prefixes: {query: "query: ", passage: ""}}')
    path.write_text(text)
    assert manifest.load(path).task.options.text.prefixes == (("query", "query: "), ("passage", ""))


@pytest.mark.parametrize("given", ["query", "[query]", "{query: 7}", "{query: }", "[[query, a, b]]"])
def test_prefixes_that_are_no_mapping_of_texts_are_told_with_their_place(tmp_path: Path, given: str) -> None:
    path = stand_ins.manifest(tmp_path)
    path.write_text(path.read_text().replace("normalize: true}", f"normalize: true, prefixes: {given}}}"))
    with pytest.raises(ManifestError) as caught:
        manifest.load(path)
    assert "text.prefixes: expected a mapping such as {query: 'query: '}, got" in str(caught.value)


# Tokenizers that do not fit


def refusal(folder: Path, rows: int | None) -> str:
    with pytest.raises(StageError) as caught:
        feature_extraction.verify(folder, rows)
    return str(caught.value)


def test_a_fitting_tokenizer_is_accepted(folder: Path) -> None:
    feature_extraction.verify(folder, 64)


def test_a_tokenizer_larger_than_the_table_is_told_with_both(folder: Path) -> None:
    largest = max(stand_ins.tokenizer().get_vocab().values())
    feature_extraction.verify(folder, largest + 1)
    assert f"knows ids up to {largest}, the embedding table ends at {largest - 1}" in refusal(folder, largest)


def test_added_tokens_count_too(folder: Path, tmp_path: Path) -> None:
    tokenizer = stand_ins.tokenizer()
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken("<new>")])
    assert "knows ids up to" in refusal(with_tokenizer(folder, tmp_path / "added", tokenizer), size)


def test_without_a_known_table_any_tokenizer_that_parses_will_do(folder: Path) -> None:
    feature_extraction.verify(folder, None)


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path, 64) == "no tokenizer.json in the source; add it to `source.files`"


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"null", b'{"version": "1.0", "model": {"type": "Odd"}}'])
def test_a_tokenizer_that_does_not_parse_is_told(folder: Path, tmp_path: Path, content: bytes) -> None:
    broken = with_tokenizer(folder, tmp_path / "broken", content)
    told = refusal(broken, 64)
    assert told.startswith("tokenizer.json does not parse (")
    assert "\n" not in told
    with pytest.raises(StageError, match=r"tokenizer\.json does not parse"):
        embedder(broken)


@given(st.lists(st.integers(1, 9000), max_size=80), st.integers(1, 40))
def test_batches_hold_every_text_once_and_never_too_many_tokens(lengths: list[int], size: int) -> None:
    batches = list(in_batches(lengths, size))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= MOST_TOKENS for batch in batches)
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths)
