"""A tokenizer's files in a folder, as transformers and others open them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from camelid.errors import UnsupportedError
from camelid.files import whole_file
from camelid.tokens.tokenizer import Tokenizer


def save_tokenizer(
    tokenizer: Tokenizer,
    folder: Path,
    *,
    context: int | None = None,
    chat_template: str | list[dict[str, str]] | None = None,
    native: bool = True,
) -> list[Path]:
    """Write tokenizer.json and tokenizer_config.json, and Meta's tokenizer.model where that can hold the tokenizer.

    Args:
        tokenizer: what to write.
        folder: must be there; each file appears whole or not at all.
        context: longest text, in tokens, for programs that cut there.
        chat_template: Jinja, or several named ones, as tokenizer_config.json has them.
        native: write tokenizer.model too: SentencePiece's, or tiktoken's ranks.

    Returns:
        The files.

    Raises:
        UnsupportedError: tokenizer.json cannot hold this tokenizer.
    """
    contents = {
        "tokenizer.json": tokenizer.to_json().encode(),
        "tokenizer_config.json": _config(tokenizer, context, chat_template).encode(),
    }
    if native:
        with suppress(UnsupportedError):  # only Llamas' own tokenizers have such a file
            contents["tokenizer.model"] = tokenizer.to_meta()
    written = []
    for name, content in contents.items():
        with whole_file(folder / name) as file:
            file.write(content)
        written.append(folder / name)
    return written


def _config(tokenizer: Tokenizer, context: int | None, chat_template: str | list[dict[str, str]] | None) -> str:
    values: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": tokenizer.adds_bos,
    }
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "unk": tokenizer.unk_id, "pad": tokenizer.pad_id}
    values |= {f"{name}_token": tokenizer.piece(id) for name, id in ids.items() if id is not None}
    if context is None:
        del values["model_max_length"]
    if chat_template is not None:
        values["chat_template"] = chat_template
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
