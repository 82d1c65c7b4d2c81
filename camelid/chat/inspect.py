"""What a model is, read from its files: family, shape, kinds of numbers, chat format, hashes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from camelid.errors import CamelidError
from camelid.files import sha256
from camelid.model.family import recognise
from camelid.tokens.templates.chat_format import choose_format
from camelid.weights.open import Weights


def describe(weights: Weights, hashes: bool = True) -> dict[str, Any]:
    """Everything that can be said without running the model, as plain values for JSON.

    Args:
        weights: an opened model.
        hashes: also read all files to give their SHA-256.
    """
    config = weights.config
    kinds = Counter(tensor.quant for tensor in weights.tensors.values())
    stored = sum(tensor.nbytes for tensor in weights.tensors.values())
    return {
        "path": str(weights.path),
        "format": weights.format,
        "family": recognise(config),
        "architecture": config.architecture,
        "shape": {name: value for name, value in asdict(config).items() if name != "architecture"},
        "parameters": config.n_parameters,
        "quants": dict(kinds.most_common()),
        "bytes": stored,
        "bits_per_weight": round(8 * stored / config.n_parameters, 2),
        "cache_bytes_per_token": 2 * 2 * config.n_layers * config.kv_dim,  # keys and values of 16 bits
        "stop_ids": sorted({*weights.stop_ids, *_own_end(weights)}),
        "chat_format": chat_format_name(weights),
        "sampling": _sampling(weights),
        "tokenizer": _tokenizer(weights),
        "files": [{"name": file.name, "bytes": file.stat().st_size} for file in weights.files],
        "hashes": {file.name: sha256(file) for file in weights.files} if hashes else {},
    }


def chat_format_name(weights: Weights) -> str | None:
    """Where conversations get their form: `the model's own template`, or None if it brings none."""
    if (weights.chat_template is None and not weights.named_templates) or not weights.has_tokenizer:
        return None
    try:
        return choose_format(weights.tokenizer, weights.chat_template, None, weights.named_templates).name
    except CamelidError as error:
        return f"unusable: {error}"


def _sampling(weights: Weights) -> dict[str, Any]:
    """What the files recommend; a bias of minus infinity, which JSON does not have, is the list of banned ids."""
    bias = weights.sampling.get("logit_bias")
    return {**weights.sampling, **({} if bias is None else {"logit_bias": {"-inf": sorted(bias)}})}


def _own_end(weights: Weights) -> list[int]:
    """The tokenizer's id that ends a text, if there is a tokenizer and it has one."""
    eos = weights.tokenizer.eos_id if weights.has_tokenizer else None
    return [] if eos is None else [eos]


def _tokenizer(weights: Weights) -> dict[str, Any] | None:
    if not weights.has_tokenizer:
        return None
    tokenizer = weights.tokenizer
    return {
        "kind": tokenizer.kind,
        "size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "adds_bos": tokenizer.adds_bos,
        "special": len(tokenizer.special_ids),
        "fingerprint": tokenizer.fingerprint(),
    }
