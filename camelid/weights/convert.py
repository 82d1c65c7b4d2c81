"""Any format to any format, one tensor at a time.

Unquantised numbers pass through bit for bit. Where numbers change (another kind was asked for, or a quantised source
goes to a format of plain numbers) that is said in the log, and no kind overflows silently.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from camelid.errors import NumericsError, OptionError, UnsupportedError, first_few, one_of
from camelid.weights.formats.gguf_write import write_gguf
from camelid.weights.formats.hf_write import write_hf
from camelid.weights.formats.meta_write import output_bytes, write_meta
from camelid.weights.open import open_weights
from camelid.weights.quants import QUANTS, UNQUANTISED, dequantise_rows, quantise_rows
from camelid.weights.quants.quant import Bytes
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Format, Weights
from camelid.weights.writing import Progress, replacing

log = logging.getLogger(__name__)

_FOR_FILES_BESIDE = 64_000_000  # header, vocabulary, config
_ROWS_AT_A_TIME = 1 << 24  # weights that are float32 at the same time
_MAX_HALF = 65504.0  # largest number of 16 bits, and so largest scale of a block
_PLAIN = "F16"  # what quantised weights become in a format of plain numbers, if nothing else is asked
_EXACT_ENOUGH = ("F32", "F16", "BF16", "Q8_0", "Q6_K")  # good enough for the embedding and the output matrix


def save_weights(
    source: Weights | Path | str,
    target: Path | str,
    *,
    format: str,
    quant: str | None = None,
    shards: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a model in another format, or the same one stored otherwise.

    Args:
        source: an opened model, or a path that `open_weights` takes.
        target: the new GGUF file, or the new folder.
        format: "gguf", "hf" or "meta".
        quant: how to store the matrices: a key of `QUANTS` for a GGUF; F32, F16 or BF16, for all tensors, in the other
            two. None: as they are; quantised ones become F16 where the format holds plain numbers only.
        shards: model-parallel parts of a Meta folder; about how many files of a Hugging Face folder.
        overwrite: whether to replace an existing model.
        progress: called with bytes done, bytes in all and the tensor's name.

    Returns:
        The target. It appears complete or not at all.

    Raises:
        OptionError: an argument is wrong or the target exists. ResourceError: the disk has not enough room.
        UnsupportedError: the format cannot hold this model. NumericsError: a number is too large for the kind.
    """
    weights = source if isinstance(source, Weights) else open_weights(source)
    target = Path(target)
    _check_arguments(format, quant, shards)
    _check_kind(target, format)
    if weights.config.scalar_head and format != "hf":
        raise UnsupportedError(f"{target}: a reward model is a Hugging Face folder; write it with --to hf")
    kinds = gguf_kinds(weights, quant) if format == "gguf" else plain_kinds(weights, quant)
    tensors = {name: stored_as(tensor, kinds[name]) for name, tensor in weights.tensors.items()}
    planned = replace(weights, tensors=tensors)
    if not weights.has_tokenizer:
        log.warning("%s: no tokenizer beside the weights, so none is written", weights.path)
    n_bytes = output_bytes(planned) if format == "meta" else planned.nbytes
    with replacing(target, n_bytes + _FOR_FILES_BESIDE, overwrite) as partial:
        if format == "gguf":
            write_gguf(partial, planned, progress)
        elif format == "hf":
            write_hf(partial, planned, _main_kind(kinds, tensors), shards, progress)
        else:
            write_meta(partial, planned, shards, progress)
    return target


def gguf_kinds(weights: Weights, quant: str | None) -> dict[str, str]:
    """How each tensor will be stored in a GGUF: vectors as F32, matrices as asked or as they are.

    Embedding and output matrix suffer most from coarse rounding and are stored as Q6_K at least. A row that a kind's
    blocks do not divide is stored as Q8_0, or F16 if 32 does not divide it either.
    """
    kinds, replaced = {}, []
    for name, tensor in weights.tensors.items():
        kind = tensor.quant if quant is None else quant
        if len(tensor.shape) == 1:
            kind = "F32"
        elif quant is not None and name in ("embed_tokens", "lm_head") and quant not in _EXACT_ENOUGH:
            kind = "Q6_K"
        asked = kind
        for coarser in ("Q8_0", "F16"):
            if tensor.shape[-1] % QUANTS[kind].block:
                kind = coarser
        if kind != asked:
            replaced.append(f"{name} as {kind}")
        kinds[name] = kind
    if replaced:
        log.warning("%s: rows are not a multiple of the block; stored instead: %s", weights.path, first_few(replaced))
    requantised = [
        name
        for name, tensor in weights.tensors.items()
        if kinds[name] != tensor.quant and tensor.quant not in UNQUANTISED
    ]
    if requantised:
        log.warning("%s: already quantised, so rounded twice: %s", weights.path, first_few(requantised))
    return kinds


def plain_kinds(weights: Weights, dtype: str | None) -> dict[str, str]:
    """How each tensor will be stored where only F32, F16 and BF16 can be.

    A vector that a GGUF holds as F32 returns to the matrices' kind if that holds it exactly.
    """
    if dtype is not None:
        return dict.fromkeys(weights.tensors, dtype)
    kinds = {name: t.quant if t.quant in UNQUANTISED else _PLAIN for name, t in weights.tensors.items()}
    if any(t.quant not in UNQUANTISED for t in weights.tensors.values()):
        log.warning("%s: quantised weights are written as %s", weights.path, _PLAIN)
    matrices = {name: tensor for name, tensor in weights.tensors.items() if len(tensor.shape) > 1}
    main = _main_kind(kinds, matrices)
    for name, tensor in weights.tensors.items():
        if name not in matrices and kinds[name] == "F32" and _holds(main, tensor):
            kinds[name] = main
    return kinds


def stored_as(tensor: Tensor, quant: str) -> Tensor:
    """The tensor in another kind, converted a few rows at a time when it is read; itself if it is of that kind."""
    if tensor.quant == quant:
        return tensor

    def read() -> Bytes:
        source, target = QUANTS[tensor.quant], QUANTS[quant]
        rows = tensor.blocks()
        out = np.empty((len(rows), target.row_bytes(tensor.shape[-1])), np.uint8)
        step = max(_ROWS_AT_A_TIME // tensor.shape[-1], 1)
        for start in range(0, len(rows), step):
            values = dequantise_rows(source, rows[start : start + step])
            _check_range(tensor.name, quant, values)
            out[start : start + step] = quantise_rows(target, values)
        return out

    return Tensor(tensor.name, tensor.shape, quant, read)


def _check_range(name: str, quant: str, values: np.ndarray) -> None:
    """Refuse numbers that the kind would turn into infinity."""
    if quant in ("F32", "BF16"):
        return
    largest = float(np.abs(values).max())
    if not largest <= _MAX_HALF:
        raise NumericsError(f"{name}: holds {largest:g}, too large for {quant}; choose BF16 or F32")


def _holds(quant: str, tensor: Tensor) -> bool:
    values = tensor.array().reshape(1, -1)
    return bool((dequantise_rows(QUANTS[quant], quantise_rows(QUANTS[quant], values)) == values).all())


def _main_kind(kinds: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """The kind that holds most weights."""
    counts: dict[str, int] = {}
    for name, tensor in tensors.items():
        counts[kinds[name]] = counts.get(kinds[name], 0) + tensor.n_rows * tensor.shape[-1]
    return max(counts, key=lambda kind: counts[kind])


def _check_arguments(format: str, quant: str | None, shards: int) -> None:
    if format not in get_args(Format):
        raise OptionError(f"format: unknown format {format!r}; {one_of(format, get_args(Format))}")
    able = [name for name, row in QUANTS.items() if row.quantise] if format == "gguf" else list(UNQUANTISED)
    if quant is not None and quant not in able:
        raise OptionError(f"quant: {quant!r} cannot be written to format {format}; {one_of(quant, able)}")
    if shards < 1:
        raise OptionError(f"shards: must be 1 or more, got {shards}")
    if format == "gguf" and shards > 1:
        raise OptionError("shards: a GGUF is written as one file; leave shards out")


def _check_kind(target: Path, format: str) -> None:
    """Refuse to put a folder in a file's place, or a file in a folder's."""
    try:
        wrong = target.exists() and target.is_dir() == (format == "gguf")
    except OSError as error:
        raise OptionError(f"{target}: cannot be written there ({error.strerror}); choose another name") from None
    if wrong:
        wanted = "a file" if format == "gguf" else "a folder"
        raise OptionError(f"{target}: format {format} is {wanted}, but this is not one; choose another name")
