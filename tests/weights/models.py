"""Tiny models in memory, and a tokenizer that only remembers, for tests of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from camelid.model.config import ModelConfig
from camelid.weights import Tensor, Weights, save_weights
from tests.tiny import tiny_config, tiny_tensors


def tiny_weights(
    quant: str = "F32", norms: str | None = None, config: ModelConfig | None = None, **rest: Any
) -> Weights:
    """A random model held in memory, matrices as `quant`, norms as `norms` (default: the same)."""
    config = config or tiny_config()
    tensors = {
        name: Tensor.from_array(name, array, quant if array.ndim > 1 else norms or quant)
        for name, array in tiny_tensors(config).items()
    }
    return Weights(Path("in memory"), "meta", config, tensors, **rest)


def saved(folder: Path, format: str, quant: str = "F32", shards: int = 1, **changes: Any) -> Path:
    """A tiny model's file or folder."""
    weights = tiny_weights(quant, config=tiny_config(**changes))
    return save_weights(weights, folder / format, format=format, shards=shards, overwrite=True)


def assert_same(one: Weights, other: Weights, quants: bool = True) -> None:
    """Same shape, same tensors bit for bit and, unless told otherwise, stored in the same way."""
    assert one.config == other.config
    assert set(one.tensors) == set(other.tensors)
    for name, tensor in one.tensors.items():
        theirs = other.tensors[name]
        assert (tensor.quant == theirs.quant) or not quants, name
        assert np.array_equal(tensor.array().view(np.uint32), theirs.array().view(np.uint32)), name


class StubTokenizer:
    """Stands where a real tokenizer would, so that files can be tested without one."""

    bos_id, eos_id, unk_id, pad_id = 1, 2, 0, None
    adds_bos = True

    def piece(self, id: int) -> str:
        return f"<{id}>"

    def to_json(self) -> str:
        return '{"version": "1.0"}'

    def to_meta(self) -> bytes:
        return b"IQ== 0\n"

    def to_gguf(self) -> dict[str, Any]:
        return {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.tokens": ["<0>", "é", "\udcff"],
            "tokenizer.ggml.scores": [0.5, -1.0, 0.0],
            "tokenizer.ggml.token_type": [1, 3, 1],
            "tokenizer.ggml.merges": [],
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.add_bos_token": True,
        }
