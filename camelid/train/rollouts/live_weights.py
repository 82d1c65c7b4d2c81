"""The weights of a model in training as an opened model: what the engine reads, without a file between."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed.tensor import DTensor

from camelid.model.config import tensor_shapes
from camelid.model.llama_torch import LlamaTorch
from camelid.tokens.tokenizer import Tokenizer
from camelid.train.adapters.linear import LoraLinear
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights

Precision = Literal["bf16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_QUANTS = {"bf16": "BF16", "fp32": "F32"}
_WHERE = Path("the model in training")


def live_weights(model: LlamaTorch, tokenizer: Tokenizer, precision: Precision = "bf16") -> Weights:
    """A model's parameters as `Weights`, whose tensors read from it when they are asked for.

    Where ranks share the model, each tensor is gathered here and now, so that every rank has all of it; every rank must
    call this, in the same order. What the model has beside a Llama's own tensors (a scalar head) is left out; adapters
    are added to their matrices, in float32.

    Args:
        precision: of the numbers; rounded to the nearest, ties to even, as in a checkpoint in bf16.
    """
    shapes, tensors = tensor_shapes(model.config), {}
    for name, values in whole_parameters(model, precision).items():
        ours = name.removesuffix(".weight")
        tensors[ours] = Tensor(ours, shapes[ours], _QUANTS[precision], partial(_blocks, values, precision))
    return Weights(_WHERE, "hf", model.config, tensors, load_tokenizer=lambda: tokenizer)


@torch.no_grad()
def whole_parameters(model: LlamaTorch, precision: Precision) -> Mapping[str, torch.Tensor]:
    """Each parameter of a Llama by its name in the module, whole on every rank: the parameter's own memory where it is
    whole already, else gathered, and converted before it travels. Of a matrix with an adapter, or in the blocks of a
    file, it is what the two come to."""
    wanted: Mapping[str, Any] = tensor_shapes(model.config)
    whole: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            whole[f"{name}.weight"] = module.whole().to(DTYPES[precision])
    for name, parameter in model.named_parameters():
        if name.removesuffix(".weight") in wanted and name not in whole:
            own = parameter.detach()
            whole[name] = own.to(DTYPES[precision]).full_tensor() if isinstance(own, DTensor) else own
    return whole


def _blocks(values: torch.Tensor, precision: Precision) -> NDArray[np.uint8]:
    moved = values.to(device="cpu", dtype=DTYPES[precision]).contiguous()
    rows: NDArray[np.uint8] = moved.view(-1, moved.shape[-1]).view(torch.uint8).numpy()
    return rows
