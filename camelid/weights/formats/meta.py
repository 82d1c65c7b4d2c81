"""A Meta folder as Weights: params.json and consolidated.NN.pth, cut over any number of model-parallel shards.

Beside Meta's own files camelid writes `camelid.json` with what Meta's format cannot say (context, rope factor, chat
template, stop ids), so that a model comes back as it was; Meta's programs do not look at it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from camelid.errors import FormatError, MissingError, UnsupportedError
from camelid.model.config import ModelConfig, shape_in
from camelid.weights.formats.hf import read_json, tokenizer_loader
from camelid.weights.formats.meta_config import read_config
from camelid.weights.formats.safetensors_file import Stored
from camelid.weights.formats.state_names import without_notes
from camelid.weights.formats.tensor_names import interleaved_to_halves, meta_name, rotated_heads
from camelid.weights.formats.torch_pickle import read_torch
from camelid.weights.quants.quant import Bytes
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights, by_our_names, check_tensors

EXTRAS = "camelid.json"
_SHARD = re.compile(r"consolidated\.(\d\d)\.pth")
_AGAIN = "fetch the folder again"
# Along which axis a tensor is cut, by the last but one word of its name; norms are whole in every shard.
_AXES = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}
_Shards = Sequence[Mapping[str, Stored]]


def open_meta(folder: Path) -> Weights:
    """Open a folder with params.json and consolidated.00.pth and on.

    Raises:
        FormatError, UnsupportedError, MissingError: as the message says.
    """
    path = folder / "params.json"
    values = read_json(path)
    files = _shard_files(folder)
    shards = [without_notes(file, _without_frequencies(read_torch(file))) for file in files]
    names = _same_names(folder, shards)
    parts = {name: _joined(folder, name, [shard[name] for shard in shards], values) for name in names}
    for name in ("output.weight", "layers.0.feed_forward.w1.weight", "tok_embeddings.weight"):
        if name not in parts or len(parts[name].shape) != 2:
            raise FormatError(f"{folder}: lacks {name}; {_AGAIN}")
    tied = _same_bytes(parts["output.weight"], parts["tok_embeddings.weight"])
    ffn_dim = parts["layers.0.feed_forward.w1.weight"].shape[0]
    with shape_in(path):
        config = read_config(path, values, parts["output.weight"].shape[0], ffn_dim, tied)
    if tied:
        del parts["output.weight"]
    extras = read_json(folder / EXTRAS) if (folder / EXTRAS).exists() else {}
    with shape_in(folder / EXTRAS):
        config = _with_extras(folder / EXTRAS, config, extras)
    return Weights(
        path=folder,
        format="meta",
        config=config,
        tensors=_our_tensors(folder, config, parts),
        chat_template=extras.get("chat_template"),
        named_templates=extras.get("named_templates", {}),
        stop_ids=tuple(extras.get("stop_ids", ())),
        metadata=values,
        files=(path, *files),
        load_tokenizer=tokenizer_loader(folder, config.vocab_size),
    )


class _Joined:
    """One tensor of the whole model, its shards joined when it is read."""

    def __init__(self, dtype: str, shape: tuple[int, ...], parts: Sequence[Stored], axis: int) -> None:
        self.dtype, self.shape, self.parts, self.axis = dtype, shape, parts, axis

    def head(self) -> Bytes:
        """The first rows, where that is quick to say."""
        return self.parts[0].some_rows(slice(8)) if len(self.parts) == 1 else self.rows()

    def rows(self) -> Bytes:
        """The bytes as (rows, bytes per row); a vector is one row."""
        if len(self.parts) == 1:
            return self.parts[0].rows()
        # Cutting by columns cuts each row's bytes, so joining bytes joins numbers.
        return np.concatenate([part.rows() for part in self.parts], axis=self.axis)


def _shard_files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if _SHARD.fullmatch(file.name))
    if not files:
        raise MissingError(f"{folder}: params.json but no consolidated.00.pth; fetch the weights into the folder")
    expected = [f"consolidated.{number:02d}.pth" for number in range(len(files))]
    missing = [name for name in expected if not (folder / name).exists()]
    if missing:
        raise MissingError(f"{folder}: {missing[0]} is missing; fetch all shards into the folder")
    return files


def _without_frequencies(shard: Mapping[str, Stored]) -> dict[str, Stored]:
    """Without rope.freqs, which follows from the config."""
    return {name: stored for name, stored in shard.items() if not name.endswith("rope.freqs")}


def _same_names(folder: Path, shards: _Shards) -> list[str]:
    names = list(shards[0])
    for number, shard in enumerate(shards):
        odd = set(names).symmetric_difference(shard)
        if odd:
            raise FormatError(
                f"{folder}: consolidated.{number:02d}.pth and shard 00 disagree about {min(odd)}; {_AGAIN}"
            )
    return names


def _joined(folder: Path, name: str, parts: Sequence[Stored], values: Mapping[str, Any]) -> _Joined:
    first = parts[0]
    if any(part.shape != first.shape or part.dtype != first.dtype for part in parts):
        raise FormatError(f"{folder}: {name} has different shapes in different shards; {_AGAIN}")
    dtype = first.quant()
    if name.endswith(".bias") or len(first.shape) > 2:
        raise UnsupportedError(f"{folder}: tensor {name} belongs to arithmetic that is not supported")
    word = name.removesuffix(".weight").rpartition(".")[2]
    if len(parts) == 1 or len(first.shape) < 2:
        return _Joined(dtype, first.shape, parts[:1], 0)
    if word == "tok_embeddings":
        # Llama 1 and 2 cut the embedding by columns, Llama 3 by rows: the width tells which.
        axis = 0 if first.shape[1] == values.get("dim") else 1
    elif word in _AXES:
        axis = _AXES[word]
    else:
        raise UnsupportedError(f"{folder}: tensor {name} is not known, so its shards cannot be joined")
    if word in ("wk", "wv"):
        parts = _without_repeats(parts, values)
    shape = list(first.shape)
    shape[axis] *= len(parts)
    return _Joined(dtype, tuple(shape), parts, axis)


def _without_repeats(parts: Sequence[Stored], values: Mapping[str, Any]) -> Sequence[Stored]:
    """With more shards than key/value heads, neighbouring shards hold the same head: one of each."""
    kv_heads = values.get("n_kv_heads") or values.get("n_heads")
    if not isinstance(kv_heads, int) or kv_heads <= 0 or len(parts) <= kv_heads or len(parts) % kv_heads:
        return parts
    return parts[:: len(parts) // kv_heads]


def _same_bytes(first: _Joined, second: _Joined) -> bool:
    """Whether two tensors are equal; the first rows tell nearly always."""
    if first.shape != second.shape or first.dtype != second.dtype or len(first.shape) != 2:
        return False
    return np.array_equal(first.head(), second.head()) and np.array_equal(first.rows(), second.rows())


def _with_extras(path: Path, config: ModelConfig, extras: Mapping[str, Any]) -> ModelConfig:
    context, factor = extras.get("context", config.context), extras.get("rope_factor")
    template, stop_ids, named = (
        extras.get("chat_template"),
        extras.get("stop_ids", []),
        extras.get("named_templates", {}),
    )
    valid = (
        isinstance(template, str | None) and isinstance(named, dict) and all(isinstance(t, str) for t in named.values())
    )
    valid = valid and isinstance(stop_ids, list) and all(type(id) is int for id in stop_ids)
    if not valid or not isinstance(factor, float | int | None):
        raise FormatError(f"{path}: chat_template, stop_ids or rope_factor is of the wrong kind; delete or correct it")
    config = replace(config, context=context)
    if factor is not None and config.rope_scaling is not None:
        config = replace(config, rope_scaling=replace(config.rope_scaling, factor=float(factor)))
    return config


def _our_tensors(folder: Path, config: ModelConfig, parts: Mapping[str, _Joined]) -> Mapping[str, Tensor]:
    ours = by_our_names(folder, config, parts, meta_name)
    check_tensors(folder, config, {name: part.shape for name, part in ours.items()})
    return {name: Tensor(name, part.shape, part.dtype, _reader(config, name, part)) for name, part in ours.items()}


def _reader(config: ModelConfig, name: str, part: _Joined) -> Callable[[], Bytes]:
    heads = rotated_heads(name, config)
    if heads is None:
        return part.rows
    rows = interleaved_to_halves(part.shape[0], heads)
    return lambda: part.rows()[rows]
