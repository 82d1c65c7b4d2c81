"""Vocabularies for tests: real ones where a package holds them, small ones made here."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.vocabulary import byte_characters

_P = "tokenizer.ggml."


@cache
def llama3_path() -> Path:
    """Llama 3's own ranks, in the wheel that carries them."""
    spec = importlib.util.find_spec("models")
    places = spec.submodule_search_locations if spec else None
    found = [path for place in places or () if (path := Path(place) / "llama3" / "tokenizer.model").is_file()]
    if not found:
        pytest.skip("Llama 3's ranks are not here: pip install --no-deps llama-models")
    return found[0]


@cache
def llama3() -> Tokenizer:
    """Llama 3's own vocabulary."""
    return Tokenizer.open(llama3_path())


@cache
def smollm2_fields(path: Path) -> dict[str, Any]:
    """The default model's fields about tokens, as another library reads them."""
    gguf = pytest.importorskip("gguf")
    fields = gguf.GGUFReader(path).fields.items()
    return {name: field.contents() for name, field in fields if name.startswith("tokenizer.")}


@cache
def smollm2(path: Path) -> Tokenizer:
    """The default model's vocabulary."""
    return Tokenizer.from_gguf(smollm2_fields(path))


def smollm2_template(path: Path) -> str:
    """The default model's chat template."""
    return str(smollm2_fields(path)["tokenizer.chat_template"])


@cache
def small_llama2(*control: str) -> Tokenizer:
    """A vocabulary like Llama 2's, with a few pieces, and more control tokens."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made = ["IN", "ST", "INST", "▁[", "]▁", "[/", "▁a", "▁▁", "SY", "<<", ">>", "▁☺", "▁x"]
    letters = ["▁", *"[]INST/<>Yabcxs☺"]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *letters, *made, *control]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(letters) + len(made)), *[3] * len(control)]
    plain = len(tokens) - len(made) - len(control)
    scores = [0.0] * plain + [-1.0 - n for n in range(len(made))] + [0.0] * len(control)
    fields: dict[str, Any] = {"model": "llama", "tokens": tokens, "scores": scores, "token_type": types}
    fields |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return Tokenizer.from_gguf({_P + key: value for key, value in fields.items()})


@cache
def small_bytes(*control: str) -> Tokenizer:
    """A byte-level vocabulary without merges, with control tokens; the first is EOS."""
    tokens, types = [*byte_characters(), *control], [1] * 256 + [3] * len(control)
    fields: dict[str, Any] = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": types, "merges": []}
    if control:
        fields["eos_token_id"] = 256
    return Tokenizer.from_gguf({_P + key: value for key, value in fields.items()})
