"""Records what transformers makes of chat templates and of scores: python record_generation.py > generation.json

Runs where transformers and torch are installed. The templates say, in words of this repository, what those of the
named models say in a chat without tools: their default system message, their marks, their order.
"""

import json
import sys
from datetime import datetime
from unittest import mock

import numpy as np
import torch
import transformers
from transformers import PreTrainedTokenizerFast
from transformers.generation import logits_process
from transformers.utils import chat_template_utils

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN25 = """\
{%- set first = messages[0] %}
{%- if first.role == 'system' %}
    {{- '<|im_start|>system\\n' + first.content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or message.role == 'assistant' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA3 = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n' }}
{{- 'Today Date: ' + strftime_now('%d %b %Y') + '\\n\\n' + system + '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
DIALECT = """\
  {% if messages | length > 3 %}
  {{ raise_exception('too many messages') }}
  {% endif %}
{% for message in messages %}
    {% if message.role == 'tool' %}{% continue %}{% endif %}
    {% generation %}{{ message | tojson }}{% endgeneration %}

    {{ message.get('data', {}) | tojson(indent=2) }} {{ tools is none }} {{ absent is defined }}
{% endfor %}
{{ eos_token }}
"""
TEMPLATES = {"smollm2": SMOLLM2, "qwen2.5": QWEN25, "llama3": LLAMA3, "dialect": DIALECT}
QUESTION = {"role": "user", "content": "  Où est <b>la gare</b> & l'école? 東京 🚉\n"}
CHATS = [
    [QUESTION],
    [{"role": "system", "content": " Be brief. "}, QUESTION],
    [
        QUESTION,
        {"role": "assistant", "content": "Là-bas."},
        {"role": "user", "content": "Thanks", "data": {"é": [1, None]}},
    ],
]
WARPERS = [(0.7, None, None), (1.0, 5, None), (1.3, None, 0.6), (0.5, 8, 0.9), (2.0, 1, 0.5), (1.0, 40, 0.05)]


class Day(datetime):
    """A clock that stands still on 2024-07-26."""

    @classmethod
    def now(cls, tz=None):
        return datetime(2024, 7, 26, 12)


def rendered(template, messages, prompt):
    from tokenizers import Tokenizer, models

    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<|begin_of_text|>", eos_token="<|end|>"
    )
    with mock.patch.object(chat_template_utils, "datetime", Day):
        return made.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=prompt)


def warped(scores, temperature, top_k, top_p):
    steps = [logits_process.TemperatureLogitsWarper(temperature)]
    steps += [logits_process.TopKLogitsWarper(top_k)] if top_k else []
    steps += [logits_process.TopPLogitsWarper(top_p)] if top_p else []
    made = torch.tensor([scores], dtype=torch.float64)
    for step in steps:
        made = step(None, made)
    return [None if value == -np.inf else round(value, 12) for value in made[0].tolist()]


def main():
    """One JSON document on standard output."""
    scores = np.random.default_rng(5).normal(0, 2, 24).round(2).tolist()
    chats = [
        {"template": name, "messages": messages, "prompt": prompt, "text": rendered(text, messages, prompt)}
        for name, text in TEMPLATES.items()
        for messages in CHATS
        for prompt in (True, False)
    ]
    warpers = [{"temperature": t, "top_k": k, "top_p": p, "scores": warped(scores, t, k, p)} for t, k, p in WARPERS]
    made = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "templates": TEMPLATES,
        "chats": chats,
        "scores": scores,
        "warpers": warpers,
    }
    json.dump(made, sys.stdout, ensure_ascii=False, indent=1)
    print()


main()
