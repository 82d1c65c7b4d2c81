"""What is in the data: counts, lengths, n-grams, domains, languages, personal details, duplicates, test items."""

from __future__ import annotations

import functools
import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camelid.data.decontaminate.evaluation_text import EvaluationText
from camelid.data.dedup.external_sort import find_duplicates, keyed_rows
from camelid.data.manifest import NAME, Manifest, read_manifest
from camelid.data.options import DecontaminateOptions
from camelid.data.report.sketches import Histogram
from camelid.data.report.summary import CAPACITIES, ReportContext, Summary, summarise, text_at
from camelid.data.shards import FOLDER, Shard
from camelid.data.workers import Workers
from camelid.errors import FormatError, MissingError, OptionError
from camelid.run_layout import DATA, DOCUMENTS

TOP = 20  # rows of each table
_MEMORY = 256 * 2**20  # for sorting keys of documents

Progress = Callable[[str, int, int | None], None]


def find_data(folder: Path, stage: str | None = None) -> Path:
    """The data folder of a run, of a stage or of a run's stage, or the folder itself.

    Raises:
        MissingError: none has a manifest.
        OptionError: several stages of the run have data of their own.
    """
    for place in (folder, folder / DATA) if stage is None else (folder / stage / DATA,):
        if (place / NAME).is_file():
            return place
    stages = sorted(place.parent.parent for place in folder.glob(f"*/{DATA}/{NAME}")) if stage is None else []
    if len(stages) > 1:
        names = [place.name for place in stages]
        raise OptionError(f"{folder}: several stages have data; give one's folder, or --stage: {', '.join(names)}")
    if stages:
        return stages[0] / DATA
    where = folder if stage is None else folder / stage
    raise MissingError(f"{where}: no prepared data; make it with: camelid prepare RECIPE, or camelid train RECIPE")


def report(
    folder: Path, against: DecontaminateOptions | None = None, workers: int = 1, progress: Progress | None = None
) -> dict[str, Any]:
    """Everything about a data folder, as JSON values; the same for any number of workers.

    Args:
        folder: of data, with its files of documents.
        against: test items to look for, in files relative to the working folder.
        workers: processes.
        progress: called with bytes done and in all.

    Raises:
        MissingError, FormatError, VerifyError: the folder is not complete.
        OptionError: files of test items that are none.
    """
    manifest = read_manifest(folder)
    files = _files(folder, manifest)
    against = against or DecontaminateOptions()
    texts = EvaluationText(against, Path()) if against.against else None
    with tempfile.TemporaryDirectory(prefix="camelid-") as name, Workers(workers) as pool:
        keys = Path(name)
        summary = _summed(pool, ReportContext(keys, against, Path()), files, 2 * workers, progress)
        tokens = dict(pool.map(functools.partial(_token_counts, folder / FOLDER), list(manifest.shards)))
        duplicates = {kind: _duplicates(keys, kind) for kind in ("url", "exact")}
    about = {
        "folder": str(folder),
        "fingerprint": manifest.fingerprint(),
        "documents": summary.characters.count,
        "bytes": summary.bytes,
        "sources": _sources(manifest, tokens),
        "lengths": _lengths(summary, tokens),
        "ngrams": [_ngrams(n, summary, files) for n in CAPACITIES],
        "duplicates": duplicates,
        "stages": [dict(stage) for stage in manifest.stages],
    }
    about |= {} if manifest.chats is None else {"chats": dict(manifest.chats)}
    for kind in ("domains", "top_level", "schemes", "languages", "licences"):
        tally = getattr(summary, kind)
        rows = [{"name": name, "documents": documents, "words": words} for name, documents, words in tally.most(TOP)]
        about[kind] = {"different": len(tally.rows), "rows": rows, "error": tally.error}
    about["personal_details"] = {"documents": summary.with_details, "kinds": dict(sorted(summary.details.items()))}
    about["tests"] = _tests(summary, texts)
    return about


def _files(folder: Path, manifest: Manifest) -> list[Path]:
    """Files of documents, in the order of sources."""
    files: list[Path] = []
    for source in manifest.sources:
        files += sorted((folder / DOCUMENTS).glob(f"{source.name}-[0-9]*.jsonl.gz"))
    if not files and manifest.shards:
        raise MissingError(f"{folder / 'documents'}: no documents; prepare the data again to report on its text")
    return files


def _summed(
    pool: Workers, context: ReportContext, files: Sequence[Path], wave: int, progress: Progress | None
) -> Summary:
    """The sum of all files, in their order; a wave of files at a time, so that few summaries wait for their turn."""
    summary, done, total = Summary(), 0, sum(path.stat().st_size for path in files)
    numbered = list(enumerate(files))
    for start in range(0, len(files), wave):
        parts = {}
        for item, part in pool.map(functools.partial(summarise, context), numbered[start : start + wave]):
            parts[item[0]] = part
            done += item[1].stat().st_size
            if progress is not None:
                progress("reading", done, total)
        for number in sorted(parts):
            summary.merge(parts[number])
    return summary


def _token_counts(folder: Path, shard: Shard) -> tuple[Histogram, int]:
    """Tokens of each document of a shard, and bytes of their texts."""
    spread, size = Histogram(), 0
    path = folder / f"{shard.name}.docs.jsonl.gz"
    try:
        with gzip.open(path) as file:
            for line in file:
                about = json.loads(line)
                spread.add(about["tokens"])
                size += about["bytes"]
    except FileNotFoundError:
        raise MissingError(f"{path}: not there; prepare the data again") from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise FormatError(f"{path}: cannot be read ({error}); prepare the data again") from None
    return spread, size


def _duplicates(folder: Path, kind: str) -> dict[str, int]:
    """Documents whose URL or text was there before."""
    files = sorted(folder.glob("*.npz"))
    counts = [int(np.load(file)["count"]) for file in files]
    starts = np.cumsum([0, *counts])

    def blocks() -> Iterator[NDArray[np.void]]:
        for file, start, count in zip(files, starts[:-1].tolist(), counts, strict=True):
            yield keyed_rows(np.load(file)[kind], np.arange(start, start + count))

    count = 0
    for repeated, _ in find_duplicates(blocks(), int(starts[-1]), folder, _MEMORY):
        count += len(repeated)
    return {"documents": int(starts[-1]), "repeated": count}


def _sources(manifest: Manifest, tokens: dict[Shard, tuple[Histogram, int]]) -> list[dict[str, Any]]:
    rows = []
    weights = sum(source.weight for source in manifest.sources)
    for source in manifest.sources:
        counts = [counted for shard, counted in tokens.items() if shard.source == source.name]
        n_tokens, size = source.tokens + source.validation_tokens, sum(bytes_ for _, bytes_ in counts)
        row: dict[str, Any] = {"name": source.name, "kind": source.kind, "licence": source.licence}
        row |= {"documents": source.documents + source.validation_documents, "bytes": size, "tokens": n_tokens}
        row |= {"validation_documents": source.validation_documents, "validation_tokens": source.validation_tokens}
        row |= {"share": round(source.weight / weights, 6) if weights else 0.0}
        rows.append(row | {"bytes_per_token": round(size / n_tokens, 3) if n_tokens else None})
    return rows


def _lengths(summary: Summary, tokens: dict[Shard, tuple[Histogram, int]]) -> dict[str, Any]:
    counted = Histogram()
    for spread, _ in tokens.values():
        counted.merge(spread)
    kinds = {"characters": summary.characters, "words": summary.words, "tokens": counted}
    return {name: spread.as_json() for name, spread in kinds.items()}


def _ngrams(n: int, summary: Summary, files: list[Path]) -> dict[str, Any]:
    frequent = summary.frequent[n]
    most = frequent.most(TOP)
    texts = text_at(files, [place for _, _, place in most], n)
    rows = [{"text": texts[place], "count": count} for _, count, place in most]
    return {
        "n": n,
        "total": frequent.total,
        "different": summary.different[n].estimate(),
        "error": frequent.error,
        "rows": rows,
    }


def _tests(summary: Summary, texts: EvaluationText | None) -> dict[str, Any] | None:
    if texts is None:
        return None
    rows = [
        {
            "name": name,
            "items": count,
            "too_short": texts.skipped.get(name, 0),
            "found": len(summary.items.get(name, ())),
            "documents": summary.tests[name],
        }
        for name, count in texts.counts.items()
    ]
    return {"rows": rows, "examples": summary.test_examples}
