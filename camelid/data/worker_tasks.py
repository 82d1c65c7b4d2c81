"""What workers do: each function makes one unit's files, complete or not at all, so that work can stop anywhere."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camelid.data.decontaminate import Decontamination
from camelid.data.dedup.apply import Deduplication
from camelid.data.dedup.signatures import Signer
from camelid.data.document import Document
from camelid.data.filters.rules import Filters
from camelid.data.folder import DataFolder, write_json
from camelid.data.ids import Ids
from camelid.data.options import DataOptions
from camelid.data.reading.documents import read_documents, read_parts, write_documents
from camelid.data.reading.work_units import WorkUnit
from camelid.data.shards import ShardWriter
from camelid.data.stage_stats import StageStats
from camelid.tokens.tokenizer import Tokenizer

_BATCH = 1_000_000  # characters that are tokenised at once


@dataclass(frozen=True)
class PrepareContext:
    """What all workers know.

    Attributes:
        options: the table `data`.
        base: the recipe's folder.
        folder: of the data.
        seed: of the recipe.
    """

    options: DataOptions
    base: Path
    folder: Path
    seed: int

    @property
    def data_folder(self) -> DataFolder:
        """The data folder."""
        return DataFolder(self.folder)


def read_unit(context: PrepareContext, unit: WorkUnit) -> None:
    """Read a unit, filter its documents, and make signatures of those that stay."""
    folder = context.data_folder
    stats, filters = StageStats("read", filters=False), Filters(context.options.rules, context.base)
    signer = Signer(context.options.dedup)
    compared = bool(context.options.dedup.stages())

    def remaining() -> Iterator[Document]:
        for document in read_parts(unit.parts, unit.source, stats):
            passed = filters(document)
            if passed is not None:
                if compared:
                    signer.add(*passed)
                yield passed[0]

    write_documents(folder.read / f"{unit.name}.jsonl.gz", remaining())
    signer.save(folder.read / f"{unit.name}.npz")
    save_stage_stats(folder.read / f"{unit.name}.json", [stats, *filters.stage_stats])


def keep_unit(context: PrepareContext, numbered: tuple[int, WorkUnit]) -> None:
    """Put decisions about duplicates into effect and take out evaluation text: what is left is the data's documents.

    Args:
        context: what all workers know.
        numbered: the unit and its number among all units.
    """
    number, unit = numbered
    folder, stages = context.data_folder, context.options.dedup.stages()
    documents = read_documents(folder.read / f"{unit.name}.jsonl.gz")
    stage_stats: list[StageStats] = []
    if stages:
        deduplication = Deduplication(folder.decisions, number, context.options.dedup)
        stage_stats += deduplication.stage_stats.values()
        documents = deduplication.apply(documents)
    if context.options.decontaminate.against:
        decontamination = Decontamination(context.options.decontaminate, context.base)
        stage_stats.append(decontamination.stats)
        documents = decontamination.apply(documents)
    last, ids = StageStats("kept", filters=False), Ids()
    write_documents(folder.documents / f"{unit.name}.jsonl.gz", _counted(ids.noted(documents), last))
    ids.save(folder.kept / f"{unit.name}.ids.npy")
    for stats in stage_stats:
        if stats.name in stages:
            stats.name = f"dedup.{stats.name}"  # there are rules of the same names
    save_stage_stats(folder.kept / f"{unit.name}.json", [*stage_stats, last])
    (folder.read / f"{unit.name}.jsonl.gz").unlink(missing_ok=True)


@dataclass(frozen=True)
class Group:
    """Units of one source whose tokens lie together.

    Attributes:
        source: its name.
        number: of the group in its source.
        units: names of the units.
        n_bytes: of their texts.
    """

    source: str
    number: int
    units: tuple[str, ...]
    n_bytes: int

    @property
    def name(self) -> str:
        """Begins the names of its files."""
        return f"{self.source}-{self.number:05d}"


def encode_group(context: PrepareContext, group: Group) -> None:
    """Tokenise documents, those for training and those held out for validation."""
    data_folder, tokenizer = context.data_folder, _tokenizer(context.data_folder.tokenizer)
    stats = StageStats("tokenise", filters=False)
    ends = (tokenizer.bos_id, tokenizer.eos_id)
    begin, end = (np.array([] if id is None else [id], np.uint32) for id in ends)
    shard_folder, size = data_folder.encoded / group.name, tokenizer.vocab_size
    with (
        ShardWriter(shard_folder, group.source, size) as training,
        ShardWriter(shard_folder, group.source, size, validation=True) as validation,
    ):
        for batch in _batches(data_folder.documents / f"{name}.jsonl.gz" for name in group.units):
            for document, ids in zip(batch, tokenizer.encode_batch([document.text for document in batch]), strict=True):
                tokens = np.concatenate([begin, ids, end])
                (validation if is_validation(document, context) else training).add(document, tokens)
                stats.keep(document)
                stats.change("tokens", len(tokens))
        shards = [*training.close(), *validation.close()]
    about = {"shards": [asdict(shard) for shard in shards], "stages": [_as_json(stats)]}
    write_json(data_folder.encoded / f"{group.name}.json", about)


def _batches(paths: Iterable[Path]) -> Iterator[list[Document]]:
    """Documents of files, about a megabyte at a time."""
    batch: list[Document] = []
    size = 0
    for path in paths:
        for document in read_documents(path):
            batch.append(document)
            size += len(document.text)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def is_validation(document: Document, context: PrepareContext) -> bool:
    """Whether a document is for validation: by its source and id and the seed, whatever other documents there are."""
    name = f"{context.seed}\n{document.source}\n{document.id}".encode()
    number = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
    return number < context.options.validation * 2**64


def save_stage_stats(path: Path, stage_stats: Sequence[StageStats]) -> None:
    """Write statistics, which says at the same time that the unit is done."""
    write_json(path, {"stages": [_as_json(stats) for stats in stage_stats]})


def _as_json(stats: StageStats) -> dict[str, Any]:
    return {**stats.as_json(), "seconds": stats.seconds}


def _counted(documents: Iterator[Document], stats: StageStats) -> Iterator[Document]:
    for document in documents:
        stats.keep(document)
        yield document


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.open(folder)
