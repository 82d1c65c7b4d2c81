"""An adapter and its base: whether they belong together, and the two as one model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from camelid.errors import OptionError
from camelid.model.config import ModelConfig, tensor_shapes
from camelid.tokens.templates.chat_templates import DEFAULT, folder_templates
from camelid.weights.formats.hf import tokenizer_loader
from camelid.weights.lora import HEAD, Adapter, BaseModel, Pair
from camelid.weights.quants.quant import Bytes
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights

_CLOSE = 1e-3  # norms of one model, stored in other kinds, differ by less; those of two models by more


def describe_base(weights: Weights, name: str | None = None, quantised: bool = False) -> BaseModel:
    """What is kept of a base beside an adapter; reads a row of each tensor, and the norms."""
    digest = hashlib.sha256()
    for key in sorted(weights.tensors):
        tensor = weights.tensors[key]
        first = tensor.rows(slice(0, 1))
        digest.update(f"{key} {tensor.shape} {tensor.quant} ".encode() + first.tobytes())
    path = str(Path(weights.path).absolute())
    return BaseModel(path, name or path, digest.hexdigest(), _norms(weights), quantised)


def check_base(adapter: Adapter, weights: Weights) -> None:
    """Refuse a base that an adapter was not made for.

    Raises:
        OptionError: matrices of other shapes, or norms of another model.
    """
    shapes = tensor_shapes(weights.config)
    wanted: dict[str, tuple[int, ...]]
    wanted = {name: (len(pair.up), pair.down.shape[1]) for name, pair in adapter.pairs.items()}
    wanted |= {name: tensor.shape for name, tensor in adapter.whole.items() if name != HEAD}
    for name, shape in wanted.items():
        there = shapes.get(name, shapes["embed_tokens"] if name == "lm_head" else None)
        if there != shape:
            found = f"(out, in) {there}" if there else "no such matrix"
            raise OptionError(
                f"{adapter.path}: an adapter of another base: {name} is {shape} in it, {found} in {weights.path}; "
                f"it was made for {adapter.base_name or 'a model it does not name'}",
                param="adapter",
            )
    if adapter.base is not None and not _same_norms(adapter.base.norms, _norms(weights)):
        raise OptionError(
            f"{adapter.path}: an adapter of another base: it was made for {adapter.base.name}, and the norms of "
            f"{weights.path} are not those; give that base",
            param="adapter",
        )


def is_trained_on(adapter: Adapter, weights: Weights) -> bool:
    """Whether these very files are what an adapter was trained on; True where nothing is known of it."""
    return adapter.base is None or adapter.base.stored == describe_base(weights).stored


def adapted_config(config: ModelConfig, adapter: Adapter) -> ModelConfig:
    """The shape with an adapter: a tied model whose embedding or output matrix was trained alone is tied no more, and
    one whose adapter has a score head rates texts."""
    if HEAD in adapter.whole:
        return replace(config, scalar_head=True, ties_embeddings=False)
    parted = {"embed_tokens", "lm_head"} & set(adapter.whole)
    if not config.ties_embeddings or not parted or adapter.ties:
        return config
    return replace(config, ties_embeddings=False)


def adapted(weights: Weights, adapter: Adapter) -> Weights:
    """A base with an adapter added in float32, each matrix when it is read; its other tensors stay as they are stored.

    Raises:
        OptionError: as `check_base`.
    """
    check_base(adapter, weights)
    config = adapted_config(weights.config, adapter)
    tensors = dict(weights.tensors)
    if not (config.ties_embeddings or config.scalar_head) and weights.config.ties_embeddings:
        tensors["lm_head"] = replace(tensors["embed_tokens"], name="lm_head")
    tensors |= adapter.whole
    tensors |= {name: _merged(tensors[name], pair) for name, pair in adapter.pairs.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if name in tensor_shapes(config)}
    changes: dict[str, Any] = {"config": config, "tensors": tensors, "files": (*weights.files, *adapter.files)}
    if config.scalar_head:
        changes |= {"metadata": {}, "format": "hf"}
    elif config != weights.config and weights.format == "hf":
        changes["metadata"] = {**weights.metadata, "tie_word_embeddings": False}
    return replace(with_own_tokenizer(weights, adapter), **changes)


def with_own_tokenizer(weights: Weights, adapter: Adapter) -> Weights:
    """A base whose tokenizer and chat template are those that lie beside an adapter, where some do."""
    loader = tokenizer_loader(adapter.path, weights.config.vocab_size)
    if loader is None:
        return weights
    templates = folder_templates(adapter.path)
    changes: dict[str, Any] = {"load_tokenizer": loader, "path": adapter.path}
    if templates:
        changes |= {"chat_template": templates.pop(DEFAULT, None), "named_templates": templates}
    return replace(weights, **changes)


def _merged(tensor: Tensor, pair: Pair) -> Tensor:
    def read() -> Bytes:
        return np.ascontiguousarray(tensor.array() + pair.delta()).view(np.uint8)

    return Tensor(tensor.name, tensor.shape, "F32", read)


def _norms(weights: Weights) -> dict[str, tuple[float, float]]:
    vectors = (key for key, tensor in weights.tensors.items() if len(tensor.shape) == 1 and not key.endswith(".bias"))
    arrays = {key: weights.tensors[key].array().astype(np.float64) for key in vectors}
    return {key: (float(array.mean()), float(array.std())) for key, array in arrays.items()}


def _same_norms(one: Mapping[str, tuple[float, float]], other: Mapping[str, tuple[float, float]]) -> bool:
    if set(one) != set(other):
        return False
    return all(
        abs(mean - other[key][0]) + abs(deviation - other[key][1]) <= _CLOSE * (1e-3 + abs(mean) + deviation)
        for key, (mean, deviation) in one.items()
    )
