"""What each model is, what it reads, and when an answer is right."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from learned.recipe import entailment, files, functions, vocabularies
from modelkit.generation import summaries
from modelkit.generation.chat import ChatTemplate

IGNORED = -100
"""The label of a token that is not scored, in torch's cross entropy."""
LEARNED, ASKED = 1, 2
"""Seeds of what is learned from and of what is asked in the end."""
Message = dict[str, str]


class Subject(Protocol):
    """One model and what it learns."""

    dtype: torch.dtype

    def model(self) -> Any:
        """With fresh weights."""

    def batches(self, size: int) -> Iterator[dict[str, Any]]:
        """Inputs and labels without end."""

    def write_companions(self, folder: Path) -> None:
        """The files that a repository has beside config.json and the weights."""

    def right_answers(self, model: Any, count: int) -> int:
        """How many of `count` held-out questions `model` answers rightly."""


class Chats:
    """A Llama that answers one message, in ChatML."""

    dtype = torch.bfloat16

    def __init__(self, pairs: Callable[[bool], Iterator[tuple[list[Message], str]]], layers: int) -> None:
        """`pairs(held_out)`: conversations and answers without end."""
        self._pairs, self._layers = pairs, layers
        self._template = ChatTemplate(vocabularies.CHATML, {}, Path("tokenizer_config.json"))
        texts = (self._prompt(chat) + answer for chat, answer in islice(pairs(False), 2000))
        self._tokenizer = vocabularies.byte_level(texts, vocabularies.CHAT_TOKENS, 768)
        self._end = vocabularies.CHAT_TOKENS.index("<|im_end|>")

    def model(self) -> Any:
        """The parts of SmolLM2, smaller."""
        config = LlamaConfig(
            vocab_size=self._tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=320,
            num_hidden_layers=self._layers, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            rope_theta=10000.0, rms_norm_eps=1e-5, initializer_range=0.05, tie_word_embeddings=True,
            bos_token_id=1, eos_token_id=self._end, pad_token_id=self._end,
        )  # fmt: skip
        return LlamaForCausalLM(config)

    def batches(self, size: int) -> Iterator[dict[str, Any]]:
        """Only the answer's tokens are scored."""
        pairs = self._pairs(False)
        while True:
            rows = [(self._ids(self._prompt(chat)), [*self._ids(text), self._end])
                    for chat, text in islice(pairs, 8 * size)]  # fmt: skip
            for batch in alike(rows, size):
                ids, mask = beside([[*prompt, *answer] for prompt, answer in batch], self._end)
                labels, _ = beside([[IGNORED] * len(prompt) + answer for prompt, answer in batch], IGNORED)
                yield {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def write_companions(self, folder: Path) -> None:
        """Tokenizer, chat template, generation settings."""
        self._tokenizer.save(str(folder / "tokenizer.json"))
        write(folder / "tokenizer_config.json", {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>", "model_max_length": 512,
            "clean_up_tokenization_spaces": False, "chat_template": vocabularies.CHATML,
        })  # fmt: skip

    def right_answers(self, model: Any, count: int) -> int:
        """Equal to the letter; one prompt at a time, so that no padding is needed."""
        right = 0
        for chat, answer in islice(self._pairs(True), count):
            ids = torch.tensor([self._ids(self._prompt(chat))])
            said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
            right += self._tokenizer.decode(said[0, ids.shape[1] :].tolist()) == answer
        return right

    def _prompt(self, chat: list[Message]) -> str:
        return self._template.render(chat)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


class Rewriting:
    """A T5 that reads a function and writes its summary, as CodeT5 does."""

    dtype = torch.float16

    def __init__(self) -> None:
        shown = islice(self._shown(held_out=False), 2000)
        texts = (text for example in shown for text in (example.code, example.summary))
        self._tokenizer = vocabularies.byte_level(texts, vocabularies.CODE_TOKENS, 768, ends=True)

    def model(self) -> Any:
        """The parts of CodeT5, smaller."""
        config = T5Config(
            vocab_size=self._tokenizer.get_vocab_size(), d_model=128, d_kv=32, d_ff=256, num_layers=3,
            num_decoder_layers=2, num_heads=4, relative_attention_num_buckets=32, relative_attention_max_distance=128,
            dropout_rate=0.0, feed_forward_proj="relu", decoder_start_token_id=0, pad_token_id=0, bos_token_id=1,
            eos_token_id=2,
        )  # fmt: skip
        return T5ForConditionalGeneration(config)

    def batches(self, size: int) -> Iterator[dict[str, Any]]:
        """The labels end with the token that ends an answer."""
        shown = self._shown(held_out=False)
        while True:
            rows = [(self._tokenizer.encode(row.code).ids, self._label(row.summary)) for row in islice(shown, 8 * size)]
            for batch in alike(rows, size):
                ids, mask = beside([code for code, _ in batch], 0)
                labels, _ = beside([label for _, label in batch], IGNORED)
                yield {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def write_companions(self, folder: Path) -> None:
        """The tokenizer; a T5 has no chats."""
        self._tokenizer.save(str(folder / "tokenizer.json"))
        write(folder / "tokenizer_config.json", {
            "tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>",
            "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
            "model_max_length": 512, "clean_up_tokenization_spaces": False,
        })  # fmt: skip

    def right_answers(self, model: Any, count: int) -> int:
        """Equal to the letter."""
        right = 0
        for example in islice(self._shown(held_out=True), count):
            ids = torch.tensor([self._tokenizer.encode(example.code).ids])
            said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
            right += self._tokenizer.decode(said[0].tolist()) == example.summary
        return right

    def _shown(self, *, held_out: bool) -> Iterator[functions.Function]:
        """Plain ones: these few layers do not learn in minutes what the order of two names means."""
        return functions.examples(ASKED if held_out else LEARNED, held_out=held_out, plain=True)

    def _label(self, text: str) -> list[int]:
        return [*self._tokenizer.encode(text, add_special_tokens=False).ids, 2]


class Judging:
    """A DeBERTa-v3 that says whether one sentence follows from another."""

    dtype = torch.float16

    def __init__(self) -> None:
        shown = islice(entailment.pairs(LEARNED, held_out=False), 2000)
        texts = (text for pair in shown for text in (pair.premise, pair.hypothesis))
        self._tokenizer = vocabularies.pieces(texts, vocabularies.PIECE_TOKENS)

    def model(self) -> Any:
        """The parts of mDeBERTa-v3, smaller."""
        config = DebertaV2Config(
            vocab_size=self._tokenizer.get_vocab_size(), hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=256, max_position_embeddings=128, position_buckets=32, max_relative_positions=-1,
            relative_attention=True, share_att_key=True, norm_rel_ebd="layer_norm", pos_att_type=["p2c", "c2p"],
            initializer_range=0.08, position_biased_input=False, type_vocab_size=0, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, pooler_hidden_size=128, pooler_dropout=0, pooler_hidden_act="gelu",
            pad_token_id=0, id2label=dict(enumerate(entailment.LABELS)),
            label2id={label: number for number, label in enumerate(entailment.LABELS)},
        )  # fmt: skip
        return DebertaV2ForSequenceClassification(config)

    def batches(self, size: int) -> Iterator[dict[str, Any]]:
        """Pairs and the number of what is true of each."""
        shown = entailment.pairs(LEARNED, held_out=False)
        while True:
            rows = list(islice(shown, size))
            labels = torch.tensor([entailment.LABELS.index(row.label) for row in rows])
            yield {**self._inputs([(row.premise, row.hypothesis) for row in rows]), "labels": labels}

    def write_companions(self, folder: Path) -> None:
        """The tokenizer."""
        self._tokenizer.save(str(folder / "tokenizer.json"))
        write(folder / "tokenizer_config.json", {
            "tokenizer_class": "DebertaV2Tokenizer", "bos_token": "[CLS]", "eos_token": "[SEP]", "cls_token": "[CLS]",
            "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "do_lower_case": False,
            "model_max_length": 128,
        })  # fmt: skip

    def right_answers(self, model: Any, count: int) -> int:
        """The sentence's own topic is the likeliest of all topics."""
        right, topics = 0, list(entailment.TOPICS)
        for topic, sentence in islice(entailment.sentences(ASKED, held_out=True), count):
            pairs = [(sentence, f"This example is about {name}.") for name in topics]
            right += topics[int(model(**self._inputs(pairs)).logits[:, 0].argmax())] == topic
        return right

    def _inputs(self, pairs: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
        ids, mask = beside([one.ids for one in self._tokenizer.encode_batch(list(pairs))], 0)
        return {"input_ids": ids, "attention_mask": mask}


def alike(rows: Sequence[tuple[list[int], list[int]]], size: int) -> list[Sequence[tuple[list[int], list[int]]]]:
    """Batches of rows of like length, so that little is computed for padding; the batches come in any order."""
    ordered = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    random.Random(len(ordered[-1][0])).shuffle(batches)
    return batches


def beside(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows, filled up on the right, and which of it is not filling: two int64[rows, longest]."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def write(path: Path, content: dict[str, Any]) -> None:
    """As JSON that a person can read."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def summarized(held_out: bool) -> Iterator[tuple[list[Message], str]]:
    """Functions, asked about as `.summarize` asks."""
    shown = functions.examples(ASKED if held_out else LEARNED, held_out=held_out)
    return ((summaries.message(example.code), example.summary) for example in shown)


def categorized(held_out: bool) -> Iterator[tuple[list[Message], str]]:
    """Files, and their categories as JSON."""
    shown = files.examples(ASKED if held_out else LEARNED, held_out=held_out)
    return ((files.message(example.snippet), files.answer(example.category)) for example in shown)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "t5-summaries": Rewriting,
    "llama-summaries": lambda: Chats(summarized, layers=4),
    "llama-files": lambda: Chats(categorized, layers=2),
    "deberta-entailment": Judging,
}
