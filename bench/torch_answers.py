"""`python -m bench.torch_answers SOURCE`, by the reference environment's interpreter, in which there is no modelkit.

A loop of its own, as ours is: transformers' `generate` does more than find the likeliest token.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import transformers

from bench.answers import measured

START = 0
"""The token that T5's decoder begins with."""


def main(source: str) -> None:
    """Print the times and the answers as JSON."""
    torch.set_num_threads(1)
    config = transformers.AutoConfig.from_pretrained(source)
    seq2seq = config.is_encoder_decoder
    loader = transformers.AutoModelForSeq2SeqLM if seq2seq else transformers.AutoModelForCausalLM
    model = loader.from_pretrained(source, dtype=torch.float32).eval()
    steps = _seq2seq if seq2seq else _causal
    with torch.inference_mode():
        print(json.dumps(measured(lambda ids, count: steps(model, torch.tensor([ids]), count), config.vocab_size)))


def _causal(model: Any, ids: Any, count: int) -> list[int]:
    past, tokens = None, []
    for _ in range(count):
        given = model(input_ids=ids, past_key_values=past, use_cache=True)
        past, ids = given.past_key_values, given.logits[:, -1].argmax(-1, keepdim=True)
        tokens.append(int(ids))
    return tokens


def _seq2seq(model: Any, ids: Any, count: int) -> list[int]:
    mask, past, tokens = torch.ones_like(ids), None, []
    encoded, last = model.get_encoder()(input_ids=ids, attention_mask=mask), torch.tensor([[START]])
    for _ in range(count):
        given = model(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=last, past_key_values=past,
                      use_cache=True)  # fmt: skip
        past, last = given.past_key_values, given.logits[:, -1].argmax(-1, keepdim=True)
        tokens.append(int(last))
    return tokens


if __name__ == "__main__":
    main(sys.argv[1])
