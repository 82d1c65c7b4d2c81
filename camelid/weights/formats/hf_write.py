"""Weights → a Hugging Face folder that transformers' AutoModelForCausalLM and AutoTokenizer open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from camelid.tokens.files.save import save_tokenizer
from camelid.tokens.templates.chat_templates import FOLDER, config_value
from camelid.weights.formats.hf_config import write_config
from camelid.weights.formats.safetensors_file import plan_shards, shard_names, write_header
from camelid.weights.formats.sampling_files import to_generation_config
from camelid.weights.formats.tensor_names import hf_name
from camelid.weights.weights import Weights
from camelid.weights.writing import Progress, each

SHARD_BYTES = 5_000_000_000
TORCH_WORDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Copied as they are when both sides are Hugging Face folders.
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def write_hf(folder: Path, weights: Weights, dtype: str, shards: int, progress: Progress | None) -> None:
    """Write a folder; every tensor must be F32, F16 or BF16.

    Args:
        folder: is made.
        weights: what to write.
        dtype: the kind that config.json names: of most tensors.
        shards: cut the weights into about this many files; more if a file would pass 5 GB.
        progress: called after each tensor.

    Raises:
        UnsupportedError: transformers has no words for this model.
    """
    config_json = _config_json(folder, weights, dtype)
    write_beside(folder, weights)
    _write_json(folder / "config.json", config_json)
    _write_tensors(folder, weights, shards, progress)


def write_beside(folder: Path, weights: Weights) -> None:
    """Make a folder with all but the shape and the numbers: tokenizer, chat templates, stop ids, sampling defaults."""
    folder.mkdir()
    if weights.format == "hf" and weights.files:  # not one that is only in memory
        for name in _COPIED:
            if (weights.path / name).exists():
                shutil.copyfile(weights.path / name, folder / name)
        _copy_templates(weights.path / FOLDER, folder / FOLDER)
    else:
        _write_generation_config(folder, weights)
        if weights.has_tokenizer:
            context = weights.config.context
            template = config_value(weights.chat_template, weights.named_templates)
            save_tokenizer(weights.tokenizer, folder, context=context, chat_template=template, native=False)


def _copy_templates(source: Path, target: Path) -> None:
    for path in sorted(source.glob("*.jinja")):
        target.mkdir(exist_ok=True)
        shutil.copyfile(path, target / path.name)


def _config_json(folder: Path, weights: Weights, dtype: str) -> dict[str, Any]:
    word = TORCH_WORDS[dtype]
    if weights.format == "hf" and weights.metadata:
        return {**{key: value for key, value in weights.metadata.items() if key != "dtype"}, "torch_dtype": word}
    values = write_config(folder, weights.config, word)
    return {**values, **_end_ids(weights)}


def _end_ids(weights: Weights) -> dict[str, Any]:
    """bos_token_id, and eos_token_id as transformers writes it: a number, or a list of several."""
    values: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
    if weights.has_tokenizer:
        values = {"bos_token_id": weights.tokenizer.bos_id, "eos_token_id": weights.tokenizer.eos_id}
    if weights.stop_ids:
        values["eos_token_id"] = list(weights.stop_ids) if len(weights.stop_ids) > 1 else weights.stop_ids[0]
    return values


def _write_generation_config(folder: Path, weights: Weights) -> None:
    values = {key: value for key, value in _end_ids(weights).items() if value is not None}
    values |= to_generation_config(folder, weights.sampling)
    if values:
        _write_json(folder / "generation_config.json", values)


def _write_tensors(folder: Path, weights: Weights, shards: int, progress: Progress | None) -> None:
    tensors = weights.tensors
    limit = min(SHARD_BYTES, -(-weights.nbytes // shards))
    plan = plan_shards({name: tensor.nbytes for name, tensor in tensors.items()}, limit)
    files = dict(zip(shard_names(len(plan)), plan, strict=True))
    stream = each(tensors, (name for names in plan for name in names), progress)
    for file_name, names in files.items():
        with (folder / file_name).open("wb") as file:
            write_header(file, {hf_name(name): (tensors[name].quant, tensors[name].shape) for name in names})
            for _ in names:
                _, data = next(stream)
                file.write(data.reshape(-1).data)
    next(stream, None)  # lets the last tensor be reported
    if len(files) > 1:
        weight_map = {hf_name(name): file_name for file_name, names in files.items() for name in names}
        index = {"metadata": {"total_size": weights.nbytes}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
