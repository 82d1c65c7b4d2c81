"""Tiny random models: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from camelid.model.config import ModelConfig, tensor_shapes


def tiny_config(**changes: Any) -> ModelConfig:
    """A Llama small enough to run thousands of times: grouped heads, untied, two layers."""
    sizes: dict[str, Any] = {
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 16,
        "ffn_dim": 96,
        "vocab_size": 320,
        "context": 512,
    }
    return ModelConfig(**{**sizes, **changes})


def tiny_tensors(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors of every name and shape that `config` has; norms lie around one."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        values = rng.standard_normal(shape, dtype=np.float32)
        tensors[name] = 1 + 0.1 * values if len(shape) == 1 else values * np.float32(shape[-1] ** -0.5)
    return tensors
