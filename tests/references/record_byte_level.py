"""Writes byte_level.json: what transformers makes of vocab.json, merges.txt and the files beside them.

Needs transformers 4.57; python tests/references/record_byte_level.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import transformers
from tokenizers import ByteLevelBPETokenizer

HERE = Path(__file__).parent
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
EXTRA = ["<extra_id_2>", "<extra_id_1>", "<extra_id_0>"]
SIZE = 300
TEXTS = [
    "",
    " ",
    "def add(a, b):\n\treturn a + b\n",
    "if x:\r\n        print(f'{x!r}')   # why?\n\n\n",
    "They're here, we'll see; I'd say it's 2024-06-01",
    "café naïve Ünïcödé 東京 🙂‍↔️ \u00a0 \u2003 Ω",
    "\x00\x07\x7f \ufeff\u200b",
    " leading and trailing  ",
    "<s> twice </s></s><pad><unk>",
    "fill the <mask> here <mask>",
    "<extra_id_0> def <extra_id_1>:\n  <extra_id_2>\n",
    "keep <x> and <y>, <extra_id_9> <EXTRA_ID_0>",
    "a<|endoftext|> b",
]


def token(text: str, **flags: bool) -> dict[str, Any]:
    """As special_tokens_map.json has it."""
    return {"content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, **flags}


def typed(text: str, **flags: bool) -> dict[str, Any]:
    """As tokenizer_config.json had it."""
    return {**token(text, **flags), "__type": "AddedToken"}


EXTRAS = [token(text, lstrip=True) for text in EXTRA]
NUMBERED = {text: SIZE + number for number, text in enumerate(EXTRA)}
ROBERTA = {"tokenizer_class": "RobertaTokenizer"}
CASES: dict[str, dict[str, Any]] = {
    "names alone": {"tokenizer_config.json": ROBERTA},
    "nothing beside": {},
    "extra tokens with flags, numbered": {
        "tokenizer_config.json": {
            **ROBERTA, "add_prefix_space": False, "bos_token": typed("<s>"), "mask_token": typed("<mask>", lstrip=True),
            "additional_special_tokens": [typed(text, lstrip=True) for text in EXTRA],
        },
        "special_tokens_map.json": {"bos_token": token("<s>"), "additional_special_tokens": EXTRAS},
        "added_tokens.json": NUMBERED,
    },
    "extra tokens in the map alone": {
        "tokenizer_config.json": ROBERTA,
        "special_tokens_map.json": {"mask_token": "<mask>", "additional_special_tokens": EXTRAS},
    },
    "extra tokens by name, with prefix space": {
        "tokenizer_config.json": {**ROBERTA, "add_prefix_space": True, "additional_special_tokens": EXTRA},
        "special_tokens_map.json": {"cls_token": "<s>", "sep_token": "</s>"},
        "added_tokens.json": NUMBERED,
    },
    "added words that are not special": {
        "tokenizer_config.json": {**ROBERTA, "trim_offsets": False},
        "special_tokens_map.json": {"additional_special_tokens": EXTRA},
        "added_tokens.json": {"<x>": SIZE, "<y>": SIZE + 1},
    },
    "listed with flags": {
        "tokenizer_config.json": {
            **ROBERTA, "mask_token": "<mask>", "pad_token": "<pad>", "additional_special_tokens": ["<y>", "<x>"],
            "added_tokens_decoder": {
                "0": token("<pad>", special=True, normalized=False), "1": token("<s>", special=True, rstrip=True),
                "4": token("<mask>", special=True, lstrip=True, rstrip=True),
                str(SIZE): token("<x>", special=True, lstrip=True), str(SIZE + 1): token("<extra_id_0>", rstrip=True),
            },
        },
        "special_tokens_map.json": {"pad_token": "<s>"},
    },
    "another separator, no mask": {
        "tokenizer_config.json": {**ROBERTA, "sep_token": "<sep>", "cls_token": "<cls>", "mask_token": None},
    },
    "roles that disagree about one token": {
        "tokenizer_config.json": {
            **ROBERTA, "bos_token": typed("<s>", rstrip=True), "cls_token": typed("<s>", lstrip=True),
            "additional_special_tokens": ["<x>", typed("<y>", lstrip=True), "<s>"],
        },
        "special_tokens_map.json": {"additional_special_tokens": ["<y>", token("<x>", rstrip=True)]},
    },
    "GPT-2, listed": {
        "tokenizer_config.json": {
            "tokenizer_class": "GPT2Tokenizer", "cls_token": "<x>", "mask_token": "<mask>", "sep_token": typed("<y>"),
            "added_tokens_decoder": {
                str(SIZE): token("<x>", lstrip=True), str(SIZE + 1): token("<y>", rstrip=True, special=True),
            },
        },
    },
    "GPT-2": {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024}},
    "GPT-2 with padding": {
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "pad_token": "<pad>"},
        "special_tokens_map.json": {"eos_token": "</s>", "additional_special_tokens": ["<x>"]},
    },
}  # fmt: skip


def vocabulary(folder: Path) -> None:
    """vocab.json and merges.txt in `folder`, learned from the texts themselves."""
    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(TEXTS * 2, vocab_size=SIZE, special_tokens=SPECIAL)
    learner.save_model(str(folder))


def recorded(folder: Path, files: dict[str, Any]) -> dict[str, Any]:
    """What the reference makes of `files` beside the vocabulary in `folder`."""
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    kind = files.get("tokenizer_config.json", {}).get("tokenizer_class", "RobertaTokenizer")
    made = getattr(transformers, f"{kind}Fast").from_pretrained(folder)
    whole = json.loads(made.backend_tokenizer.to_str())
    for name in files:
        (folder / name).unlink()
    return {
        "files": files,
        "post_processor": whole["post_processor"],
        "pre_tokenizer": whole["pre_tokenizer"],
        "added": [" ".join(str(int(value) if name != "content" else value) for name, value in row.items())
                  for row in whole["added_tokens"]],
        "ids": [" ".join(map(str, ids)) for ids in made(TEXTS)["input_ids"]],
        "pair": " ".join(map(str, made(TEXTS[2], TEXTS[4])["input_ids"])),
    }  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary(folder)
        words, merges = (folder / "vocab.json").read_text(), (folder / "merges.txt").read_text()
        cases = {case: recorded(folder, files) for case, files in CASES.items()}
    content = {
        "transformers": transformers.__version__,
        "vocab.json": " ".join(sorted(json.loads(words), key=json.loads(words).__getitem__)),
        "merges.txt": merges,
        "texts": TEXTS,
        "cases": cases,
    }
    (HERE / "byte_level.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
