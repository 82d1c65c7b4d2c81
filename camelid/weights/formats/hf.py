"""A Hugging Face folder as Weights: config.json with safetensors or torch files, one or many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camelid.errors import FormatError, MissingError
from camelid.model.config import ModelConfig, shape_in, tensor_shapes
from camelid.parsing import MAX_JSON, parse_json
from camelid.tokens.templates.chat_templates import DEFAULT, folder_templates
from camelid.weights.formats.hf_config import read_config
from camelid.weights.formats.safetensors_file import Stored, read_safetensors
from camelid.weights.formats.sampling_files import from_generation_config
from camelid.weights.formats.state_names import plain_names, without_notes
from camelid.weights.formats.tensor_names import hf_name
from camelid.weights.opened import OpenFile
from camelid.weights.tensor import Tensor
from camelid.weights.weights import Weights, by_our_names, check_tensors

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_MAX_SHARDS = 10_000
_SINGLE = ("model.safetensors", "pytorch_model.bin")


def open_hf(folder: Path) -> Weights:
    """Open a folder with config.json and weights.

    Raises:
        FormatError, UnsupportedError, MissingError: as the message says.
    """
    path = folder / "config.json"
    values = read_json(path)
    with shape_in(path):
        config = read_config(path, values)
    found, files = _stored_tensors(folder)
    templates = folder_templates(folder)
    generation = read_json(folder / "generation_config.json") if (folder / "generation_config.json").exists() else {}
    return Weights(
        path=folder,
        format="hf",
        config=config,
        tensors=_our_tensors(folder, config, found),
        chat_template=templates.pop(DEFAULT, None),
        named_templates=templates,
        stop_ids=_stop_ids(folder, values, generation),
        sampling=from_generation_config(folder / "generation_config.json", generation),
        metadata=values,
        files=(path, *files),
        load_tokenizer=tokenizer_loader(folder, config.vocab_size),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MissingError: no such file. FormatError: no JSON object.
    """
    try:
        file = OpenFile(path)
        if file.size > MAX_JSON:
            raise FormatError(f"{path}: {file.size} bytes are too many for this file; fetch it again")
        values = parse_json(file.read(0, file.size).tobytes())
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"{path}: not JSON that can be read ({error}); fetch it again or correct it") from None
    if not isinstance(values, dict):
        raise FormatError(f"{path}: not a JSON object; fetch it again or correct it")
    return values


def tokenizer_loader(folder: Path, rows: int) -> Callable[[], Tokenizer] | None:
    """What opens the tokenizer of a model with so many rows of embeddings; None if there is no file of one."""
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        return None

    def load() -> Tokenizer:
        from camelid.tokens.tokenizer import Tokenizer

        for name in TOKENIZER_FILES:
            if (folder / name).exists():
                OpenFile(folder / name)  # says what is wrong with a file that is none
        return Tokenizer.open(folder, rows)

    return load


def _stored_tensors(folder: Path) -> tuple[dict[str, Stored], tuple[Path, ...]]:
    """All tensors by Hugging Face name, and the files they lie in."""
    for name in _SINGLE:
        index = folder / f"{name}.index.json"
        if (folder / name).exists():
            return _read_file(folder / name), (folder / name,)
        if index.exists():
            return _read_sharded(folder, index)
    raise MissingError(f"{folder}: config.json but no weights; fetch model.safetensors or its shards into the folder")


def _read_sharded(folder: Path, index: Path) -> tuple[dict[str, Stored], tuple[Path, ...]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise FormatError(f"{index}: weight_map is missing or damaged; fetch it again")
    names = sorted(set(weight_map.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise FormatError(f"{index}: {outside[0]!r} is not a file beside it; fetch it again")
    if len(names) > _MAX_SHARDS:
        raise FormatError(f"{index}: names {len(names):,} files; fetch it again")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingError(f"{folder}: {missing[0]}{more} missing; fetch all shards into the folder")
    shards = {name: _read_file(folder / name) for name in names}
    found: dict[str, Stored] = {}
    for name, file in weight_map.items():
        if name not in shards[file]:
            raise FormatError(f"{folder / file}: lacks {name}, which {index.name} says is there; fetch both again")
        found[name] = shards[file][name]
    return found, (index, *(folder / name for name in names))


def _read_file(path: Path) -> dict[str, Stored]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    from camelid.weights.formats.torch_pickle import read_torch

    return read_torch(path)


def _our_tensors(folder: Path, config: ModelConfig, found: Mapping[str, Stored]) -> Mapping[str, Tensor]:
    stored = without_notes(folder, plain_names(folder, found))
    ours = by_our_names(folder, config, stored, hf_name)
    biases = [name for name in ours if name.endswith(".bias") and name not in tensor_shapes(config)]
    if biases:
        where = "mlp_bias" if ".mlp." in biases[0] else "attention_bias"
        raise FormatError(
            f"{folder}: has {biases[0]}, but config.json does not say so; "
            f"set {where} to true there, if the model was trained so"
        )
    if config.ties_embeddings:
        # transformers uses the embedding for a tied model, whatever lies in lm_head.
        _check_tied(folder, ours.get("embed_tokens"), ours.pop("lm_head.weight", None))
    check_tensors(folder, config, {name: tensor.shape for name, tensor in ours.items()})
    return {
        name: Tensor(name, tensor.shape, tensor.quant(), tensor.rows, tensor.some_rows) for name, tensor in ours.items()
    }


def _check_tied(folder: Path, embedding: Stored | None, head: Stored | None) -> None:
    if embedding is None or head is None:
        return
    same = head.dtype == embedding.dtype and head.shape == embedding.shape
    if not same or not np.array_equal(head.data, embedding.data):
        raise FormatError(
            f"{folder}: config.json ties the output to the embedding, but lm_head.weight differs from it; "
            "set tie_word_embeddings to false if the model was trained so"
        )


def _stop_ids(folder: Path, *sources: Mapping[str, Any]) -> tuple[int, ...]:
    """Every eos id that config.json or generation_config.json names."""
    ids: dict[int, None] = {}
    for source in sources:
        value = source.get("eos_token_id")
        listed = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(id) is int for id in listed):
            raise FormatError(f"{folder}: eos_token_id must be whole numbers, is {str(value)[:40]}; correct the file")
        ids |= dict.fromkeys(id for id in listed if id >= 0)
    return tuple(ids)
