"""A GGUF file, or the parts of a split one, as Weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from camelid.errors import FormatError, UnsupportedError
from camelid.model.config import ModelConfig, shape_in, tensor_shapes
from camelid.tokens.files.gguf_fields import LazyFields
from camelid.tokens.templates.chat_templates import DEFAULT, GGUF_KEY, gguf_templates
from camelid.weights.formats.gguf_config import add_divisors, add_long_divisors, read_config
from camelid.weights.formats.gguf_file import Entry, GGUFFile, open_parts
from camelid.weights.formats.sampling_files import from_gguf
from camelid.weights.formats.tensor_names import (
    gguf_name,
    gguf_permutes,
    interleaved_to_halves,
    rotated_heads,
    rows_in_order,
)
from camelid.weights.quants import dequantise_rows
from camelid.weights.tensor import Read, ReadRows, Tensor
from camelid.weights.weights import Weights, by_our_names, check_tensors

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

ROPE_FREQS = "rope_freqs.weight"
ROPE_FACTORS = ("rope_factors_short.weight", "rope_factors_long.weight")
STOP_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_MAX_SHOWN = 10_000  # items of a list
_Entries = dict[str, tuple[GGUFFile, Entry]]


def open_gguf(path: Path) -> Weights:
    """Open a GGUF file; for a split one, whichever part is named.

    Raises:
        FormatError, UnsupportedError, MissingError: as the message says.
    """
    parts = open_parts(path)
    fields = parts[0].fields
    kind = fields.get("general.type", "model")
    if kind != "model":
        raise UnsupportedError(f"{path}: a GGUF that holds a {str(kind)!r}, not a model")
    entries = _tensors_of(parts)
    config = _config(path, fields, entries)
    templates = gguf_templates(path, fields)
    return Weights(
        path=path,
        format="gguf",
        config=config,
        tensors=_our_tensors(path, config, entries),
        chat_template=templates.pop(DEFAULT, None),
        named_templates=templates,
        stop_ids=_stop_ids(path, fields),
        sampling=from_gguf(path, fields),
        metadata={key: _shown(fields, key) for key in fields if not _is_vocabulary(fields, key)},
        files=tuple(part.path for part in parts),
        load_tokenizer=_tokenizer_loader(fields),
        gguf_fields=fields,
    )


def _tensors_of(parts: list[GGUFFile]) -> _Entries:
    entries: _Entries = {}
    for part in parts:
        for name, entry in part.entries.items():
            if name in entries:
                raise FormatError(f"{part.path}: {name} stands in an earlier part too; fetch the set again")
            entries[name] = part, entry
    promised = parts[0].fields.get("split.tensors.count", len(entries))
    if promised != len(entries):
        raise FormatError(f"{parts[0].path}: {promised} tensors promised, {len(entries)} there; fetch the set again")
    return entries


def _config(path: Path, fields: LazyFields, entries: _Entries) -> ModelConfig:
    with shape_in(path):
        config = read_config(path, fields, {name: entry.shape for name, (_, entry) in entries.items()})
        divisors = {name: _numbers(*entries.pop(name)) for name in (ROPE_FREQS, *ROPE_FACTORS) if name in entries}
        scaling = config.rope_scaling
        if ROPE_FREQS in divisors:
            config = replace(config, rope_scaling=add_divisors(path, config, divisors[ROPE_FREQS]))
        elif divisors or (scaling is not None and scaling.rule == "longrope"):
            short, long = map(divisors.get, ROPE_FACTORS)
            config = replace(config, rope_scaling=add_long_divisors(path, config, short, long))
    odd = [name for name in entries if "_exps." in name or name.startswith("rope_")]
    if odd:
        raise UnsupportedError(f"{path}: tensor {odd[0]} belongs to arithmetic that is not supported")
    return config


def _numbers(file: GGUFFile, entry: Entry) -> NDArray[np.float32]:
    return dequantise_rows(entry.quant, file.blocks(entry)).reshape(entry.shape)


def _our_tensors(path: Path, config: ModelConfig, entries: _Entries) -> Mapping[str, Tensor]:
    ours = by_our_names(path, config, entries, lambda name: gguf_name(name, config))
    shapes = tensor_shapes(config)
    # A file may have some of the biases only, as llama.cpp allows; the others are 0.
    absent = {name: shape for name, shape in shapes.items() if name.endswith(".bias") and name not in ours}
    check_tensors(path, config, {name: entry.shape for name, (_, entry) in ours.items()} | absent)
    for name, (_, entry) in ours.items():
        if name.endswith(".bias") and entry.quant.block > 1:
            raise UnsupportedError(f"{path}: {entry.name} is stored as {entry.quant.name}; a bias must be F32")
    return {
        name: Tensor.from_array(name, np.zeros(absent[name], np.float32))
        if name in absent
        else Tensor(name, shapes[name], ours[name][1].quant.name, *_readers(config, name, *ours[name]))
        for name in shapes
    }


def _readers(config: ModelConfig, name: str, file: GGUFFile, entry: Entry) -> tuple[Read, ReadRows]:
    """What reads a tensor, and some of its rows."""
    heads = rotated_heads(name, config) if gguf_permutes(config) else None
    if heads is None:
        return lambda: file.blocks(entry), lambda which: file.rows(entry, which)
    rows = interleaved_to_halves(entry.shape[0], heads)
    return lambda: rows_in_order(file.blocks(entry), rows), lambda which: file.rows(entry, rows[which])


def _stop_ids(path: Path, fields: LazyFields) -> tuple[int, ...]:
    ids = [fields[key] for key in (f"tokenizer.ggml.{name}" for name in STOP_KEYS) if key in fields]
    if not all(isinstance(id, int) for id in ids):
        raise FormatError(f"{path}: an end-of-text id is not a whole number: {str(ids)[:60]}; convert the model again")
    return tuple(dict.fromkeys(ids))


def _is_vocabulary(fields: LazyFields, key: str) -> bool:
    return key.startswith("tokenizer.") and (fields.is_array(key) or key.startswith(GGUF_KEY))


def _shown(fields: LazyFields, key: str) -> Any:
    """A field's value; of a long list, how long it is."""
    length = fields.length(key)
    return fields[key] if length <= _MAX_SHOWN else f"a list of {length:,}"


def _tokenizer_loader(fields: Mapping[str, Any]) -> Callable[[], Tokenizer] | None:
    if "tokenizer.ggml.tokens" not in fields:
        return None

    def load() -> Tokenizer:
        from camelid.tokens.tokenizer import Tokenizer

        return Tokenizer.from_gguf(fields)

    return load
