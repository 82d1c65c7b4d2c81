"""manifest.json of a data folder: sources, what each stage did, shards; enough to know the data again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camelid.data.shards import FOLDER, Shard, Tokens, shard_from_json
from camelid.errors import FormatError, MissingError, UnsupportedError, VerifyError
from camelid.files import whole_file
from camelid.parsing import parse_json
from camelid.run_layout import TOKENIZER

if TYPE_CHECKING:
    from camelid.tokens.tokenizer import Tokenizer

NAME = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class SourceStats:
    """What a source gave.

    Attributes:
        name, kind, licence: as the recipe has them.
        weight: share of the tokens that training sees, relative to the others'.
        tokens, documents: for training; validation_tokens, validation_documents: held out for validation.
        files: what was read, {name, bytes, sha256} each.
    """

    name: str
    kind: str
    licence: str
    weight: float
    tokens: int
    documents: int
    validation_tokens: int = 0
    validation_documents: int = 0
    files: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Manifest:
    """A data folder on record.

    Attributes:
        seed: of the choice of validation documents.
        tokenizer: fingerprint of the tokenizer.
        vocab_size, bos_id, eos_id: of the tokenizer.
        sources: in the recipe's order; the order of training depends on it.
        shards: by source, then number.
        stages: their statistics, as JSON, in the order in which stages ran.
        chats: of conversations, preferences or prompts: which of these (`form`), the chat format, the context; None for
            documents.
    """

    seed: int
    tokenizer: str
    vocab_size: int
    bos_id: int | None
    eos_id: int
    sources: Sequence[SourceStats]
    shards: Sequence[Shard]
    stages: Sequence[Mapping[str, Any]] = field(default=())
    chats: Mapping[str, Any] | None = None

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all that decides which tokens training sees: vocabulary, sources, weights, shards."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        about: dict[str, Any] = {
            "version": VERSION,
            "tokenizer": [self.tokenizer, self.vocab_size, self.bos_id, self.eos_id],
            "sources": [[source.name, float(source.weight)] for source in self.sources],
            "shards": [shard.as_json() for shard in self.shards],
        }
        about |= {} if self.chats is None else {"chats": dict(self.chats)}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> Path:
        """Write `manifest.json` in a data folder, complete or not at all."""
        record = {
            "version": VERSION,
            "fingerprint": self.fingerprint(),
            "seed": self.seed,
            "tokenizer": self.tokenizer,
            "vocab_size": self.vocab_size,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "sources": [asdict(source) for source in self.sources],
            "stages": [dict(stage) for stage in self.stages],
            "shards": [shard.as_json() for shard in self.shards],
        }
        record |= {} if self.chats is None else {"chats": dict(self.chats)}
        with whole_file(folder / NAME) as file:
            file.write((json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
        return folder / NAME

    def tokens(self, folder: Path, source: str, validation: bool = False) -> Tokens:
        """The tokens of one source of a data folder."""
        shards = [shard for shard in self.shards if shard.source == source and shard.validation == validation]
        return Tokens(folder / FOLDER, shards, self.vocab_size)

    def open_tokenizer(self, folder: Path) -> Tokenizer:
        """The tokenizer of a data folder.

        Raises:
            VerifyError: it is not the one that the tokens were made with.
        """
        from camelid.tokens.tokenizer import Tokenizer

        tokenizer = Tokenizer.open(folder / TOKENIZER)
        if tokenizer.fingerprint() != self.tokenizer:
            raise VerifyError(f"{folder / 'tokenizer'}: not the tokenizer that this data was made with; put it back")
        return tokenizer

    def verify(self, folder: Path) -> None:
        """Read everything again and compare hashes.

        Raises:
            MissingError: a file is not there.
            VerifyError: a shard or the tokenizer is not what it was.
        """
        self.open_tokenizer(folder)
        for shard in self.shards:
            shard.verify(folder / FOLDER)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a data folder.

    Raises:
        MissingError: there is none.
        FormatError: it cannot be read.
        UnsupportedError: it is of a later version.
        VerifyError: it was changed after it was written.
    """
    path = folder / NAME
    try:
        record = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise MissingError(f"{path}: not there; make the data with: camelid prepare RECIPE") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable manifest ({error}); prepare the data again") from None
    if not isinstance(record, dict) or not isinstance(record.get("version"), int):
        raise FormatError(f"{path}: not a manifest of prepared data; prepare the data again")
    if record["version"] != VERSION:
        raise UnsupportedError(f"{path}: version {record['version']}, this camelid reads {VERSION}; update camelid")
    try:
        manifest = Manifest(
            **{name: record[name] for name in ("seed", "tokenizer", "vocab_size", "bos_id", "eos_id", "stages")},
            sources=tuple(SourceStats(**source) for source in record["sources"]),
            shards=tuple(shard_from_json(shard, path) for shard in record["shards"]),
            chats=record.get("chats"),
        )
        changed = manifest.fingerprint() != record["fingerprint"]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(f"{path}: not as expected ({error!r}); prepare the data again") from None
    if changed:
        raise VerifyError(f"{path}: was changed after it was written; prepare the data again")
    return manifest
