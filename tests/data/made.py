"""Small data folders, made without reading, filtering or training anything."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camelid.data.document import Document
from camelid.data.folder import PLAN, write_json
from camelid.data.made_from import chosen
from camelid.data.manifest import Manifest, SourceStats
from camelid.data.shards import FOLDER, MAX_BYTES, ShardWriter
from camelid.recipe import read_recipe
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.vocabulary import byte_characters

WORDS = [
    "the",
    "a",
    "llama",
    "grass",
    "hill",
    "sees",
    "eats",
    "small",
    "green",
    "old",
    "and",
    "but",
    "under",
    "over",
    "near",
    "walks",
    "sleeps",
    "river",
    "stone",
    "wind",
    "morning",
    "night",
    "its",
    "their",
    "cold",
    "warm",
    "quiet",
    "long",
]


def some_documents(count: int, seed: int = 0, longest: int = 60) -> list[str]:
    """Texts of 1 … `longest` words from a small vocabulary, always the same."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))).capitalize() + "." for _ in range(count)]


def byte_tokenizer(vocab_size: int = 320) -> Tokenizer:
    """Byte-level with <|begin_of_text|> (256), <|end_of_text|> (257), and pairs of letters up to `vocab_size`."""
    letters = "etaoinshrdlucmfw"
    pairs = [(first, second) for first in letters for second in letters][: vocab_size - 258]
    tokens = [*byte_characters(), "<|begin_of_text|>", "<|end_of_text|>", *(first + second for first, second in pairs)]
    assert len(tokens) == vocab_size, f"vocab_size: 258 to {258 + len(letters) ** 2}"
    fields: dict[str, Any] = {"model": "gpt2", "pre": "gpt-2", "tokens": tokens}
    fields |= {"token_type": [1] * 256 + [3, 3] + [1] * len(pairs), "merges": [" ".join(pair) for pair in pairs]}
    fields |= {"bos_token_id": 256, "eos_token_id": 257}
    return Tokenizer.from_gguf({"tokenizer.ggml." + key: value for key, value in fields.items()})


def make_data(
    folder: Path,
    documents: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    vocab_size: int = 320,
    *,
    validation: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """A complete data folder at `folder`/data: tokenizer, shards, manifest. Returns it.

    Args:
        documents: texts of one source, "made", or of several by name; 40 short ones if left out.
        vocab_size: 258 … 514.
        validation: texts held out, of the first source.
        weights: by source; 1 where left out.
        max_bytes: of a shard; small ones give many.
    """
    data = folder / "data"
    (data / "tokenizer").mkdir(parents=True)
    tokenizer = byte_tokenizer(vocab_size)
    (data / "tokenizer" / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    tokenizer = Tokenizer.open(data / "tokenizer")
    assert tokenizer.eos_id is not None
    texts = documents if isinstance(documents, Mapping) else {"made": documents or some_documents(40)}
    sources, shards = [], []
    for number, (name, training) in enumerate(texts.items()):
        splits = [("", training, False), ("v", validation, True)] if number == 0 else [("", training, False)]
        counts = {}
        for mark, part, is_validation in splits:
            writer = ShardWriter(data / FOLDER, name, vocab_size, max_bytes, is_validation)
            for place, text in enumerate(part):
                document = Document(text, f"{name}/{mark}{place}", name, f"https://{name}.example/{place}", "CC0-1.0")
                writer.add(document, [*tokenizer.encode(text, bos=True), tokenizer.eos_id])
            made = writer.close()
            shards += made
            counts[is_validation] = (sum(shard.tokens for shard in made), len(part))
        weight = (weights or {}).get(name, 1.0)
        sources.append(SourceStats(name, "made", "CC0-1.0", weight, *counts[False], *counts.get(True, (0, 0))))
    record = (tokenizer.fingerprint(), tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id)
    Manifest(0, *record, tuple(sources), tuple(shards)).write(data)
    return data


def write_plan(data: Path, recipe: Path) -> None:
    """Say that a data folder was made from a recipe, as `camelid prepare` does."""
    write_json(data / PLAN, chosen(read_recipe(recipe)))
