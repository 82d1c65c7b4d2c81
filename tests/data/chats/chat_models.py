"""A byte-level tokenizer with the control tokens of ChatML and Llama 3, and models that speak by them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from camelid.data.chats.model import ChatModel
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.vocabulary import byte_characters

CONTROL = (
    *("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_TAGGED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3_TAGGED = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] | trim }}<|eot_id|>{% endgeneration %}"
    "{% else %}{{ m['content'] | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
WORDS = ["llama", "grass", "hill", "sees", "eats", "small", "green", "old", "and", "but", "under", "river", "stone"]


def chat_tokenizer(eos: str = "<|im_end|>") -> Tokenizer:
    """Bytes, a few pairs of letters, and the control tokens."""
    pairs = [first + second for first in "etaoin" for second in "etaoin"]
    tokens = [*byte_characters(), *CONTROL, *pairs]
    types = [1] * 256 + [3] * len(CONTROL) + [1] * len(pairs)
    fields: dict[str, Any] = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": types}
    fields |= {"merges": [" ".join(pair) for pair in pairs], "eos_token_id": tokens.index(eos)}
    return Tokenizer.from_gguf({"tokenizer.ggml." + key: value for key, value in fields.items()})


def chatml() -> ChatModel:
    return ChatModel(chat_tokenizer(), template=CHATML)


def conversation(draw: random.Random, most_turns: int = 4, longest: int = 12) -> list[dict[str, str]]:
    """A conversation that ends with an answer."""

    def words() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, longest)))

    system = [{"role": "system", "content": words()}] if draw.random() < 0.3 else []
    turns = range(draw.randint(1, most_turns))
    said = [{"role": role, "content": words()} for _ in turns for role in ("user", "assistant")]
    return [*system, *said]


def conversations(count: int, seed: int = 0, **shape: int) -> list[list[dict[str, str]]]:
    """Different ones, always the same."""
    draw, found = random.Random(seed), dict[str, list[dict[str, str]]]()
    while len(found) < count:
        made = conversation(draw, **shape)
        found[json.dumps(made)] = made
    return list(found.values())


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path
