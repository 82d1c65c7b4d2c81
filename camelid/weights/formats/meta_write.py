"""Weights → a Meta folder: params.json, consolidated.NN.pth for each shard, tokenizer.model and camelid.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from camelid.errors import OptionError
from camelid.model.config import ModelConfig, tensor_shapes
from camelid.weights.formats.meta import EXTRAS
from camelid.weights.formats.meta_config import write_config
from camelid.weights.formats.tensor_names import halves_to_interleaved, meta_name, rotated_heads
from camelid.weights.formats.torch_write import TorchWriter
from camelid.weights.quants.quant import Bytes
from camelid.weights.weights import Weights
from camelid.weights.writing import Progress, each

# Llama 3's vocabulary is larger than this, Llama 1's and 2's smaller; the first is cut by rows, the others by columns.
_LARGE_VOCABULARY = 100_000
_ROWS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head")
_COLUMNS = ("o_proj", "down_proj")


def write_meta(folder: Path, weights: Weights, shards: int, progress: Progress | None) -> None:
    """Write a folder; every tensor must be F32, F16 or BF16.

    Raises:
        OptionError: the model cannot be cut into so many shards.
        UnsupportedError: Meta's format has no words for this model.
    """
    config = weights.config
    params = write_config(folder, config)
    _check_cut(config, shards)
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(params) + "\n", encoding="utf-8")
    (folder / EXTRAS).write_text(json.dumps(_extras(weights), indent=2) + "\n", encoding="utf-8")
    if weights.has_tokenizer:
        (folder / "tokenizer.model").write_bytes(weights.tokenizer.to_meta())
    # Meta's programs want an output matrix even where it is the embedding.
    embedding = weights.tensors["embed_tokens"]
    rows = {
        meta_name(name): (weights.tensors[name].quant, _cut_shape(config, name, shards)) for name in weights.tensors
    }
    if config.ties_embeddings:
        rows["output.weight"] = (embedding.quant, _cut_shape(config, "lm_head", shards))
    files = [TorchWriter(folder / f"consolidated.{shard:02d}.pth", rows) for shard in range(shards)]
    try:
        for name, data in each(weights.tensors, weights.tensors, progress):
            _write_cut(files, config, name, data)
        if config.ties_embeddings:
            _write_cut(files, config, "lm_head", embedding.blocks())
        for file in files:
            file.close()
    finally:
        for file in files:
            file.abandon()


def output_bytes(weights: Weights) -> int:
    """Bytes of the tensors as this format holds them: a tied output matrix stands twice."""
    tied = weights.tensors["embed_tokens"].nbytes if weights.config.ties_embeddings else 0
    return weights.nbytes + tied


def _extras(weights: Weights) -> dict[str, Any]:
    """What Meta's own files cannot say."""
    scaling = weights.config.rope_scaling
    values: dict[str, Any] = {"context": weights.config.context}
    if scaling is not None:
        values["rope_factor"] = scaling.factor
    if weights.chat_template is not None:
        values["chat_template"] = weights.chat_template
    if weights.named_templates:
        values["named_templates"] = dict(weights.named_templates)
    if weights.stop_ids:
        values["stop_ids"] = list(weights.stop_ids)
    return values


def _check_cut(config: ModelConfig, shards: int) -> None:
    if not 1 <= shards <= 99:
        raise OptionError(f"shards: must be from 1 to 99, got {shards}")
    sizes = {"heads": config.n_heads, "ffn_dim": config.ffn_dim, "vocab_size": config.vocab_size, "dim": config.dim}
    uneven = [f"{name} {size}" for name, size in sizes.items() if size % shards]
    if config.n_kv_heads % shards and shards % config.n_kv_heads:
        uneven.append(f"key/value heads {config.n_kv_heads}")
    if uneven:
        raise OptionError(f"shards: {shards} does not divide this model's {', '.join(uneven)}; choose another number")


def _axis(config: ModelConfig, name: str) -> int | None:
    """Along which axis a tensor is cut; None: whole in every shard."""
    word = name.rpartition(".")[2]
    if word == "embed_tokens":
        return 0 if config.vocab_size > _LARGE_VOCABULARY else 1
    return 0 if word in _ROWS else 1 if word in _COLUMNS else None


def _pieces(config: ModelConfig, name: str, shards: int) -> int:
    """How many different pieces a tensor is cut into: with few key/value heads, neighbouring shards share one."""
    few = name.rpartition(".")[2] in ("k_proj", "v_proj")
    return min(shards, config.n_kv_heads) if few else shards


def _cut_shape(config: ModelConfig, name: str, shards: int) -> tuple[int, ...]:
    whole = "embed_tokens" if name == "lm_head" and config.ties_embeddings else name
    shape, axis = list(tensor_shapes(config)[whole]), _axis(config, name)
    if axis is not None:
        shape[axis] //= _pieces(config, name, shards)
    return tuple(shape)


def _write_cut(files: list[TorchWriter], config: ModelConfig, name: str, data: Bytes) -> None:
    heads, axis = rotated_heads(name, config), _axis(config, name)
    if heads is not None:
        data = data[halves_to_interleaved(len(data), heads)]
    if axis is None:
        cut = [data] * len(files)
    else:
        # Rows are bytes here; a cut by columns falls between numbers because the width is a multiple of the shards.
        pieces = _pieces(config, name, len(files))
        cut = [piece for piece in np.split(data, pieces, axis) for _ in range(len(files) // pieces)]
    for file, piece in zip(files, cut, strict=True):
        file.write(meta_name(name), np.ascontiguousarray(piece))
