"""Adapters of tiny models: written by camelid's own writer, or by PEFT where it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camelid.model.config import ModelConfig, tensor_shapes
from camelid.weights.adapted import describe_base
from camelid.weights.lora import write_adapter
from camelid.weights.open import open_weights

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Made:
    """How a tiny adapter is made; stands where LoraOptions would."""

    rank: int = 3
    alpha: float = 7.0
    rslora: bool = False
    dropout: float = 0.0


def random_parts(config: ModelConfig, rank: int, targets=ALL, seed: int = 0) -> dict[str, tuple[Any, Any]]:
    """A and B of every matrix of these names."""
    rng = np.random.default_rng(seed)
    shapes = {name: shape for name, shape in tensor_shapes(config).items() if name.rpartition(".")[2] in targets}
    return {
        name: (
            rng.standard_normal((rank, shape[1]), dtype=np.float32) * 0.2,
            rng.standard_normal((shape[0], rank), dtype=np.float32) * 0.2,
        )
        for name, shape in shapes.items()
    }


def made_adapter(folder: Path, base: Path, made: Made | None = None, targets=ALL, seed: int = 0, **about: Any) -> Path:
    """A random adapter's folder for the model at `base`."""
    made, weights = made or Made(), open_weights(base)
    folder.mkdir(parents=True)
    parts = random_parts(weights.config, made.rank, targets, seed)
    write_adapter(folder, made, parts, describe_base(weights, **about))
    return folder


def peft_model(base: Any, **config: Any) -> Any:
    """A transformers model with a random PEFT adapter."""
    import peft
    import torch

    model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    return model
