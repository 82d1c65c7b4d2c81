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
from camelid.data.dedup.apply import Decisions
from camelid.data.dedup.signatures import Signer
from camelid.data.document import Document
from camelid.data.filters.rules import Filters
from camelid.data.folder import DataFolder, write_json
from camelid.data.ids import Ids
from camelid.data.options import DataOptions
from camelid.data.reading.documents import read_documents, read_pieces, write_documents
from camelid.data.reading.work_units import Unit
from camelid.data.shards import ShardWriter
from camelid.data.stage_stats import StageReport
from camelid.tokens.tokenizer import Tokenizer

_BATCH = 1_000_000  # characters that are tokenised at once


@dataclass(frozen=True)
class Job:
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
    def at(self) -> DataFolder:
        """The data folder."""
        return DataFolder(self.folder)


def read_unit(job: Job, unit: Unit) -> None:
    """Read a unit, filter its documents, and sign those that stay for comparing."""
    at = job.at
    report, filters = StageReport("read", filters=False), Filters(job.options.rules, job.base)
    signer = Signer(job.options.dedup)
    compared = bool(job.options.dedup.stages())

    def kept() -> Iterator[Document]:
        for document in read_pieces(unit.pieces, unit.source, report):
            passed = filters(document)
            if passed is not None:
                if compared:
                    signer.add(*passed)
                yield passed[0]

    write_documents(at.read / f"{unit.name}.jsonl.gz", kept())
    signer.save(at.read / f"{unit.name}.npz")
    save_reports(at.read / f"{unit.name}.json", [report, *filters.reports])


def keep_unit(job: Job, numbered: tuple[int, Unit]) -> None:
    """Put decisions about duplicates into effect and take out evaluation text: what is left is the data's documents.

    Args:
        job: what all workers know.
        numbered: the unit and its number among all units.
    """
    number, unit = numbered
    at, stages = job.at, job.options.dedup.stages()
    documents = read_documents(at.read / f"{unit.name}.jsonl.gz")
    reports: list[StageReport] = []
    if stages:
        decisions = Decisions(at.decisions, number, job.options.dedup)
        reports += decisions.reports.values()
        documents = decisions.apply(documents)
    if job.options.decontaminate.against:
        decontamination = Decontamination(job.options.decontaminate, job.base)
        reports.append(decontamination.report)
        documents = decontamination.apply(documents)
    last, ids = StageReport("kept", filters=False), Ids()
    write_documents(at.documents / f"{unit.name}.jsonl.gz", _counted(ids.noted(documents), last))
    ids.save(at.kept / f"{unit.name}.ids.npy")
    for report in reports:
        if report.name in stages:
            report.name = f"dedup.{report.name}"  # there are rules of the same names
    save_reports(at.kept / f"{unit.name}.json", [*reports, last])
    (at.read / f"{unit.name}.jsonl.gz").unlink(missing_ok=True)


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


def encode_group(job: Job, group: Group) -> None:
    """Tokenise documents, those for training and those kept apart."""
    at, tokenizer = job.at, _tokenizer(job.at.tokenizer)
    report = StageReport("tokenise", filters=False)
    ends = (tokenizer.bos_id, tokenizer.eos_id)
    begin, end = (np.array([] if id is None else [id], np.uint32) for id in ends)
    folder, size = at.encoded / group.name, tokenizer.vocab_size
    with (
        ShardWriter(folder, group.source, size) as training,
        ShardWriter(folder, group.source, size, validation=True) as apart,
    ):
        for batch in _batches(at.documents / f"{name}.jsonl.gz" for name in group.units):
            for document, ids in zip(batch, tokenizer.encode_batch([one.text for one in batch]), strict=True):
                whole = np.concatenate([begin, ids, end])
                (apart if is_apart(document, job) else training).add(document, whole)
                report.keep(document)
                report.change("tokens", len(whole))
        shards = [*training.close(), *apart.close()]
    about = {"shards": [asdict(shard) for shard in shards], "stages": [_as_json(report)]}
    write_json(at.encoded / f"{group.name}.json", about)


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


def is_apart(document: Document, job: Job) -> bool:
    """Whether a document is for validation: by its source and id and the seed, whatever other documents there are."""
    name = f"{job.seed}\n{document.source}\n{document.id}".encode()
    number = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
    return number < job.options.validation * 2**64


def save_reports(path: Path, reports: Sequence[StageReport]) -> None:
    """Write accounts, which says at the same time that the unit is done."""
    write_json(path, {"stages": [_as_json(report) for report in reports]})


def _as_json(report: StageReport) -> dict[str, Any]:
    return {**report.as_json(), "seconds": report.seconds}


def _counted(documents: Iterator[Document], report: StageReport) -> Iterator[Document]:
    for document in documents:
        report.keep(document)
        yield document


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.open(folder)
