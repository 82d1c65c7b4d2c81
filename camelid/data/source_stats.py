"""What the manifest says of sources: licence, weight, counts, and the hash of every file that was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camelid.data.manifest import SourceStats
from camelid.data.reading.options import SourceOptions
from camelid.data.reading.work_units import WorkUnit, files_of
from camelid.data.shards import Shard
from camelid.data.workers import Workers
from camelid.pedigree import describe_file

MOST_FILES = 100  # of a source that are listed; more become one line


def source_stats(
    sources: Sequence[SourceOptions], units: Sequence[WorkUnit], shards: Sequence[Shard], pool: Workers
) -> list[SourceStats]:
    """Statistics of each source, in the recipe's order; files are hashed by the pool."""
    read = {source.name: files_of([unit for unit in units if unit.source.name == source.name]) for source in sources}
    paths = dict.fromkeys(path for files in read.values() for path in files if Path(path).is_file())
    hashes = dict(pool.map(hash_file, list(paths)))
    stats = []
    for source in sources:
        training = [shard for shard in shards if shard.source == source.name and not shard.validation]
        validation = [shard for shard in shards if shard.source == source.name and shard.validation]
        stats.append(
            SourceStats(
                name=source.name,
                kind=source.kind,
                licence=source.licence,
                weight=source.weight,
                tokens=sum(shard.tokens for shard in training),
                documents=sum(shard.documents for shard in training),
                validation_tokens=sum(shard.tokens for shard in validation),
                validation_documents=sum(shard.documents for shard in validation),
                files=files_on_record(read[source.name], hashes),
            )
        )
    return stats


def hash_file(path: str) -> str:
    """SHA-256 of a file."""
    return str(describe_file(Path(path))["sha256"])


def files_on_record(read: Mapping[str, str], hashes: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the manifest says of files: name, bytes and SHA-256 of each, or one line for many.

    Args:
        read: path → label.
        hashes: path → SHA-256, of those that are files here.
    """
    files = [_file(path, label, hashes) for path, label in read.items()]
    return files if len(files) <= MOST_FILES else [_together(files)]


def _file(path: str, label: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    """A file with its hash; of what lies on a hub only the name and commit are known."""
    if path not in hashes:
        return {"name": label, "bytes": 0, "sha256": ""}
    return {"name": label, "bytes": Path(path).stat().st_size, "sha256": hashes[path]}


def _together(files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One line for many files: their number and bytes, and the hash of the JSON list of all their lines."""
    digest = hashlib.sha256(json.dumps(files, ensure_ascii=False).encode()).hexdigest()
    return {"name": f"{len(files)} files", "bytes": sum(file["bytes"] for file in files), "sha256": digest}
