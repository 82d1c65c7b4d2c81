"""A tiny model that chats, as a folder, and conversations to tune it on."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from camelid.tokens.templates.chat_jinja import CHATML
from camelid.tokens.tokenizer import Tokenizer
from camelid.weights.convert import save_weights
from camelid.weights.open import open_weights
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights
from tests.tiny import tiny_config, tiny_tensors
from tests.tokens.vocabularies import small_bytes

CONTROL = ("<|im_end|>", "<|im_start|>", "<|end_of_text|>")
WORDS = ["llama", "grass", "hill", "eats", "sees", "old", "small", "and", "under"]


def make_chat_model(
    folder: Path, tokenizer: Tokenizer | None = None, template: str | None = CHATML, seed: int = 0, **sizes: Any
) -> Path:
    """A Hugging Face folder with random weights, a byte vocabulary, ChatML's template, stop ids and defaults."""
    tokenizer = small_bytes(*CONTROL) if tokenizer is None else tokenizer
    config = tiny_config(**{"vocab_size": tokenizer.vocab_size, "n_layers": 1, "dim": 32, "ffn_dim": 48, **sizes})
    arrays = {name: array * np.float32(0.5) for name, array in tiny_tensors(config, seed).items()}
    tensors = {name: Tensor.from_array(name, array) for name, array in arrays.items()}
    weights = Weights(
        folder,
        "gguf",  # so that files beside are written, not copied
        config,
        tensors,
        chat_template=template,
        stop_ids=(256, 258),
        sampling={"temperature": 0.25, "top_p": 0.5},
        load_tokenizer=lambda: tokenizer,
    )
    return save_weights(weights, folder, format="hf", quant="F32")


def make_reward_model(folder: Path, base: Path, seed: int = 0) -> Path:
    """A chat model's folder with a scalar head of random numbers in the output matrix's place."""
    opened = open_weights(base)
    config = replace(opened.config, scalar_head=True, ties_embeddings=False)
    head = np.random.default_rng(seed).standard_normal((1, config.dim)).astype(np.float32)
    tensors = {name: tensor for name, tensor in opened.tensors.items() if name != "lm_head"}
    tensors["score"] = Tensor.from_array("score", head)
    weights = replace(opened, config=config, tensors=tensors, format="gguf", metadata={}, files=())
    return save_weights(weights, folder, format="hf", quant="F32")


def write_talks(path: Path, count: int = 40, seed: int = 0) -> Path:
    """JSON lines of conversations, of one or two questions and answers."""
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        messages = []
        for _ in range(draw.choice([1, 1, 2])):
            asked = draw.choices(WORDS, k=draw.randint(1, 4))
            messages.append({"role": "user", "content": f"{number} {' '.join(asked)}?"})
            messages.append({"role": "assistant", "content": f"{' '.join(reversed(asked))}."})
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
