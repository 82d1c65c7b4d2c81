"""Values that a model begins with: the same for a seed, however the model is spread over ranks.

Matrices are normal with a standard deviation of 0.02 (GPT-2, OLMo 2); those that add to the residual stream are
divided by sqrt(2 · layers), so that it does not grow with depth (Radford et al. 2019, section 2.3). Norms are 1,
biases 0. Rows are drawn in blocks, each from a generator of its own, so that a rank draws only the rows it holds.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from numpy.typing import NDArray

from camelid.errors import OptionError
from camelid.model.config import ModelConfig, tensor_shapes
from camelid.model.llama_torch import LlamaTorch
from camelid.train.parallel import held
from camelid.weights.weights import Weights

STANDARD_DEVIATION = 0.02
SCORE = "score.weight"  # of a scalar head
_BLOCK = 256  # rows that share a generator; another number gives other values


@torch.no_grad()
def initialise(model: LlamaTorch, seed: int) -> None:
    """Fill every parameter, or what this rank holds of it, in place."""
    shapes = tensor_shapes(model.config)
    for name, parameter in model.named_parameters():
        ours = name.removesuffix(".weight")
        local, places = held(parameter)
        if local.numel():
            values = initial_values(model.config, ours, shapes[ours], seed, places[0])
            local.copy_(torch.from_numpy(values[(slice(None), *places[1:])]))


@torch.no_grad()
def take_weights(model: LlamaTorch, weights: Weights) -> None:
    """Fill every parameter but adapters, or what this rank holds of it, with an opened model's numbers, in place. A
    scalar head that the opened model lacks is left as it is.

    Raises:
        OptionError: the opened model has another shape.
    """
    for name, parameter in model.named_parameters():
        if name.endswith((".lora_A", ".lora_B")):
            continue
        local, places = held(parameter)
        if name == SCORE and "score" not in weights.tensors:
            continue
        tensor = weights.tensors.get(name.removesuffix(".weight"))
        if tensor is None or tuple(tensor.shape) != tuple(parameter.shape):
            found = "it is not there" if tensor is None else f"it is {tuple(tensor.shape)}"
            raise OptionError(f"{weights.path}: {name}: {tuple(parameter.shape)} is asked for, {found}")
        if local.numel():
            local.copy_(torch.from_numpy(tensor.array()[places]))


@torch.no_grad()
def initialise_score(model: LlamaTorch, deviation: float, seed: int) -> None:
    """Fill a scalar head, or what this rank holds of it, with normal numbers of this deviation; 0 gives zeros."""
    local, places = held(model.score.weight)
    values = np.random.default_rng([seed, zlib.crc32(SCORE.encode())]).standard_normal((1, model.config.dim))
    local.copy_(torch.from_numpy((deviation * values).astype(np.float32)[places]))


def initial_values(
    config: ModelConfig, name: str, shape: tuple[int, ...], seed: int, rows: slice
) -> NDArray[np.float32]:
    """Rows `rows.start … rows.stop` of a tensor, float32 (rows, in); of a norm or a bias (rows,)."""
    if name.endswith(".bias"):
        return np.zeros(rows.stop - rows.start, np.float32)
    if len(shape) == 1:
        return np.ones(rows.stop - rows.start, np.float32)
    deviation = STANDARD_DEVIATION
    if name.endswith((".o_proj", ".down_proj")):
        deviation /= math.sqrt(2 * config.n_layers)
    first, last = rows.start // _BLOCK, -(-rows.stop // _BLOCK)
    drawn = []
    for block in range(first, last):
        draw = np.random.default_rng([seed, zlib.crc32(name.encode()), block])
        height = min(_BLOCK, shape[0] - block * _BLOCK)
        drawn.append(draw.standard_normal((height, shape[1]), dtype=np.float32))
    values = np.concatenate(drawn)[rows.start - first * _BLOCK :][: rows.stop - rows.start]
    return values * np.float32(deviation)
