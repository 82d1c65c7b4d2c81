"""A GGUF's list of tokens, made as long as the embedding has rows: llama.cpp and transformers load no other file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camelid.errors import UnsupportedError
from camelid.tokens.files.gguf_vocab import padding_names
from camelid.tokens.vocabulary import CONTROL, UNUSED, USER

log = logging.getLogger(__name__)

_TOKENS = "tokenizer.ggml.tokens"
_SCORE = -10000.0  # llama.cpp's converter gives it to rows that are not a token


def fit_vocabulary(where: Path, fields: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
    """The `tokenizer.*` fields with `n_rows` tokens.

    Rows beyond the tokenizer become unused tokens `[PADn]`, as llama.cpp's converter has them. Added tokens beyond the
    rows are left out, and said: the model has no numbers for them.

    Raises:
        UnsupportedError: tokens that text is made of have no row.
    """
    if _TOKENS not in fields or len(fields[_TOKENS]) == n_rows:
        return dict(fields)
    columns = {key: list(fields[f"tokenizer.ggml.{key}"]) for key in _COLUMNS if f"tokenizer.ggml.{key}" in fields}
    pieces = columns["tokens"]
    if len(pieces) > n_rows:
        columns = {key: values[:n_rows] for key, values in columns.items()}
        types = fields.get("tokenizer.ggml.token_type", ())[n_rows:]
        if set(types) - {CONTROL, USER, UNUSED} or not types:
            raise UnsupportedError(f"{where}: {len(pieces)} tokens, but {n_rows} rows of the embedding; fetch it again")
        log.warning("%s: the embedding has no rows for %s; left out", where, ", ".join(map(repr, pieces[n_rows:][:5])))
    else:
        known = set(pieces)
        for id in range(len(pieces), n_rows):
            name = next(name for name in padding_names(id) if name not in known)
            for key, values in columns.items():
                values.append(name if key == "tokens" else _COLUMNS[key])
    lost = [key for key, id in fields.items() if key.endswith("_token_id") and id in range(n_rows, len(pieces))]
    remaining = {key: value for key, value in fields.items() if key not in lost}
    return remaining | {f"tokenizer.ggml.{key}": values for key, values in columns.items()}


_COLUMNS: dict[str, Any] = {"tokens": None, "token_type": UNUSED, "scores": _SCORE}
