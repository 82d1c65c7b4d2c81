"""Weights → one GGUF file, version 3, one tensor at a time."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from camelid.errors import UnsupportedError
from camelid.model.config import ModelConfig
from camelid.model.family import ARCHITECTURES
from camelid.model.rope import divisors
from camelid.tokens.files.gguf_fields import ARRAY, BOOL, MAGIC, SCALARS, STRING
from camelid.tokens.templates.chat_templates import GGUF_KEY, gguf_fields
from camelid.weights.formats.gguf import ROPE_FACTORS, ROPE_FREQS, STOP_KEYS
from camelid.weights.formats.gguf_config import write_config
from camelid.weights.formats.gguf_file import ALIGNMENT
from camelid.weights.formats.sampling_files import to_gguf
from camelid.weights.formats.tensor_names import (
    gguf_name,
    gguf_permutes,
    halves_to_interleaved,
    rotated_heads,
    rows_in_order,
)
from camelid.weights.formats.vocabulary_rows import fit_vocabulary
from camelid.weights.quants import QUANTS
from camelid.weights.quants.quant import Bytes
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights
from camelid.weights.writing import Progress, each

_VERSION = 3
_QUANTIZATION_VERSION = 2  # of ggml's block layouts
# Fields of a source GGUF that describe its storage rather than its model.
_OF_STORAGE = ("general.architecture", "general.file_type", "general.alignment", "general.quantization_version")
_UINT8 = 0
_TYPE_OF = {bool: BOOL, float: 6, str: STRING}


def write_gguf(path: Path, weights: Weights, progress: Progress | None) -> None:
    """Write a file with the tensors as they are stored.

    Raises:
        UnsupportedError: GGUF cannot hold the model's vocabulary or one of its fields.
    """
    config, tensors = weights.config, weights.tensors
    if (config.attention_bias or config.mlp_bias) and config.architecture != "llama":
        raise UnsupportedError(f"{path}: GGUF has no biases for {config.architecture}; write hf")
    if config.rope_scaling is not None and config.rope_scaling.rule == "dynamic":
        raise UnsupportedError(f"{path}: GGUF has no word for dynamic rope scaling; write hf")
    fields = _fields(path, weights)
    extra = _divisors(config)
    rows = {name: (values.shape, "F32", values.nbytes) for name, values in extra.items()}
    rows |= {gguf_name(name, config): (t.shape, t.quant, t.nbytes) for name, t in tensors.items()}
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", _VERSION, len(rows), len(fields)))
        for key, value in fields.items():
            file.write(_text(key) + _value(key, value))
        offset = 0
        for name, (shape, quant, n_bytes) in rows.items():
            dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
            file.write(_text(name) + dims + struct.pack("<IQ", QUANTS[quant].gguf_type, offset))
            offset += n_bytes + -n_bytes % ALIGNMENT
        _pad(file)
        for values in extra.values():
            file.write(values.tobytes())
            _pad(file)
        for name, data in each(tensors, tensors, progress):
            file.write(_in_file_order(config, tensors[name], data).reshape(-1).data)
            _pad(file)


def _in_file_order(config: ModelConfig, tensor: Tensor, data: Bytes) -> Bytes:
    heads = rotated_heads(tensor.name, config) if gguf_permutes(config) else None
    return data if heads is None else rows_in_order(data, halves_to_interleaved(tensor.shape[0], heads))


def _divisors(config: ModelConfig) -> dict[str, np.ndarray]:
    """Llama 3's scaling, plain divisors and LongRoPE's two lists are tensors in GGUF."""
    scaling = config.rope_scaling
    if scaling is None or scaling.rule not in ("llama3", "divisors", "longrope"):
        return {}
    if scaling.rule == "longrope":
        lists = (scaling.divisors, scaling.long_divisors)
        return {name: np.array(values, "<f4") for name, values in zip(ROPE_FACTORS, lists, strict=True)}
    return {ROPE_FREQS: np.ascontiguousarray(divisors(config), "<f4")}


def _fields(path: Path, weights: Weights) -> dict[str, Any]:
    """All fields of the file: what the model is, how it is stored, its vocabulary and template."""
    old = weights.gguf_fields
    kinds: dict[str, int] = {}
    for tensor in weights.tensors.values():
        kinds[tensor.quant] = kinds.get(tensor.quant, 0) + tensor.nbytes
    main = max(kinds, key=lambda kind: kinds[kind])
    fields: dict[str, Any] = {**write_config(weights.config), "general.type": "model"}
    if QUANTS[main].file_type is not None:
        fields["general.file_type"] = QUANTS[main].file_type
    if any(QUANTS[kind].block > 1 for kind in kinds):
        fields["general.quantization_version"] = _QUANTIZATION_VERSION
    fields |= {key: old[key] for key in old if key.startswith("general.") and key not in _OF_STORAGE}
    fields.setdefault("general.name", weights.path.stem)
    fields |= to_gguf(path, weights.sampling)
    keys = [key for key in old if key.startswith("tokenizer.") and not key.startswith(GGUF_KEY)]
    vocabulary = {key: old[key] for key in keys} or _vocabulary(weights)
    fields |= fit_vocabulary(weights.path, vocabulary, weights.config.vocab_size)
    fields |= gguf_fields(weights.chat_template, weights.named_templates)
    return {"general.architecture": ARCHITECTURES[weights.config.architecture].gguf_name, **fields}


def _vocabulary(weights: Weights) -> dict[str, Any]:
    """The tokenizer's fields, with every stop id in one of the three slots that GGUF has for them."""
    if not weights.has_tokenizer:
        return {}
    tokenizer = weights.tokenizer
    fields = dict(tokenizer.to_gguf())
    slots = [f"tokenizer.ggml.{key}" for key in STOP_KEYS]
    named = {fields[slot] for slot in slots if slot in fields}
    for id in weights.stop_ids:
        if id in named:
            continue
        free = [slot for slot in slots if slot not in fields]
        if not free:
            raise UnsupportedError(f"{weights.path}: GGUF has three slots for stop ids, the model has more")
        wanted = next((slot for slot in free if "eom" in slot and "eom" in tokenizer.piece(id)), free[0])
        fields[wanted] = id
    return fields


def _pad(file: BinaryIO) -> None:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Any) -> bytes:
    """A field's type number and value."""
    if isinstance(value, bytes):
        return struct.pack("<IIQ", ARRAY, _UINT8, len(value)) + value
    if isinstance(value, list | tuple):
        return struct.pack("<I", ARRAY) + _array(key, list(value))
    kind = _kind(key, value)
    return struct.pack("<I", kind) + (_text(value) if kind == STRING else struct.pack("<" + SCALARS[kind], value))


def _kind(key: str, value: Any) -> int:
    """The type number of a scalar: floats are float32, whole numbers the smallest of uint32, int32 and int64."""
    if type(value) in _TYPE_OF:
        return _TYPE_OF[type(value)]
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return 4 if 0 <= value < 1 << 32 else 5 if -(1 << 31) <= value < 0 else 11
    raise UnsupportedError(f"{key}: GGUF cannot hold {str(value)[:40]!r}")


def _array(key: str, values: list[Any]) -> bytes:
    if values and all(isinstance(value, list | tuple) for value in values):
        return struct.pack("<IQ", ARRAY, len(values)) + b"".join(_array(key, list(value)) for value in values)
    kinds = {_kind(key, value) for value in values} or {STRING}
    if kinds <= {4, 5, 11}:
        small = all(-(1 << 31) <= value < 1 << 31 for value in values)
        kinds = {5 if small else 11}
    if len(kinds) != 1:
        raise UnsupportedError(f"{key}: GGUF cannot hold a list of mixed kinds")
    (kind,) = kinds
    head = struct.pack("<IQ", kind, len(values))
    if kind == STRING:
        return head + b"".join(map(_text, values))
    return head + np.array(values, "<" + SCALARS[kind]).tobytes()
