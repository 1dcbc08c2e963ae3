"""Tokenizers of the models' families, learned from what the models read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""In the order of SmolLM2's ids."""
CODE_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
"""In the order of CodeT5's ids."""
PIECE_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
"""In the order of mDeBERTa-v3's ids."""
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_level(texts: Iterable[str], special: tuple[str, ...], size: int, *, ends: bool = False) -> Tokenizer:
    """Byte-level BPE as GPT-2 has it; `ends` puts `<s>` and `</s>` around a text, as RoBERTa does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    if ends:
        made.post_processor = processors.RobertaProcessing(
            ("</s>", special.index("</s>")), ("<s>", special.index("<s>")), add_prefix_space=False
        )
    return made


def pieces(texts: Iterable[str], special: tuple[str, ...]) -> Tokenizer:
    """Unigram pieces with `▁` where a word begins: the words of `texts` and single letters; pairs as BERT has them.

    Counted and not learned, for `tokenizers` does not learn the same pieces on every run.
    """
    counted = Counter(word for text in texts for word in text.replace(".", " .").split())
    total = sum(counted.values())
    words = {f"▁{word}": math.log(count / total) for word, count in sorted(counted.items()) if word != "."}
    letters = [*"▁.,!?'-", *map(chr, (*range(48, 58), *range(65, 91), *range(97, 123)))]
    made = Tokenizer(models.Unigram(
        [*((token, 0.0) for token in special), *words.items(), *((letter, -12.0) for letter in letters)],
        unk_id=special.index("[UNK]"), byte_fallback=False,
    ))  # fmt: skip
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(list(special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, special.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return made
