"""What preparing will take, said before it begins: files, bytes, memory, disk and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from camelid.data.dedup.cluster import MEMORY
from camelid.data.options import DataOptions
from camelid.data.reading.work_units import WorkUnit
from camelid.errors import ResourceError
from camelid.files import size_text
from camelid.tokens.training import TokenizerOptions

PROCESS = 160 * 2**20  # bytes of a process with its libraries and tables
FOR_A_CHARACTER = 80  # bytes, of the longest document while it is looked at
FOR_A_WORD = 800  # bytes, of those that a tokenizer is learned from
_COMPRESSED = 4  # a byte of .gz or .zst is about so many bytes of text
_DISK = 1.6  # bytes for a byte of text: two compressed copies for a while, and tokens
_RATE = 4e6  # bytes of text a second and worker, through all rules and the tokenizer


@dataclass(frozen=True)
class Estimate:
    """Before anything is done.

    Attributes:
        files: to be read.
        n_bytes: of text, about; 0 where a source does not tell.
        memory: bytes that all processes need at most.
        disk: bytes of the data and of what is between the stages, about.
        seconds: about.
    """

    files: int
    n_bytes: int
    memory: int
    disk: int
    seconds: float


def estimate(units: Sequence[WorkUnit], options: DataOptions, tokenizer: TokenizerOptions, workers: int) -> Estimate:
    """What it will take."""
    parts = [part for unit in units for part in unit.parts]
    n_bytes = sum(part.n_bytes * (_COMPRESSED if part.path.endswith(("gz", "zst")) else 1) for part in parts)
    busy = min(workers, max(1, len(units)))
    return Estimate(
        files=len({part.path or part.label for part in parts}),
        n_bytes=n_bytes,
        memory=memory_bound(options, tokenizer, busy),
        disk=int(n_bytes * _DISK),
        seconds=n_bytes / _RATE / busy,
    )


def memory_bound(options: DataOptions, tokenizer: TokenizerOptions, workers: int) -> int:
    """Bytes of all processes together, whatever the amount of text: workers, each with a document of the greatest
    length, or this process comparing documents, or learning a tokenizer."""
    longest = max((source.longest for source in options.sources), default=0)
    reading = workers * (PROCESS + FOR_A_CHARACTER * longest)
    learning = 0 if tokenizer.open else FOR_A_WORD * tokenizer.words
    comparing = MEMORY if options.dedup.stages() else 0
    return PROCESS + max(reading, workers * PROCESS + max(learning, comparing))


def check_memory(options: DataOptions, tokenizer: TokenizerOptions, workers: int, free: int) -> None:
    """Refuse what does not fit into `free` bytes.

    Raises:
        ResourceError: says what would fit.
    """
    need = memory_bound(options, tokenizer, workers)
    if need <= free:
        return
    fits = next((n for n in range(workers - 1, 0, -1) if memory_bound(options, tokenizer, n) <= free), None)
    advice = f"--workers {fits}" if fits else "the sources a smaller `longest`, or the tokenizer fewer `words`"
    raise ResourceError(f"may need {size_text(need)} of memory, {size_text(free)} are free; give {advice}")
