"""One file of documents summed up; summaries add up, so that memory does not grow with the data.

What is counted is that of "What's In My Big Data?" (Elazar and others 2024, https://arxiv.org/abs/2310.20707).
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from camelid.data.decontaminate.evaluation_text import EvaluationText, evaluation_text, spelled
from camelid.data.dedup.options import DedupOptions
from camelid.data.dedup.signatures import Signer
from camelid.data.document import Document, n_bytes
from camelid.data.filters.pii import find_pii
from camelid.data.options import DecontaminateOptions
from camelid.data.reading.documents import read_documents
from camelid.data.report.sketches import Histogram, HyperLogLog, MisraGries, Tally
from camelid.data.word_hashes import Hashes, Words, ngrams

CAPACITIES = {1: 1 << 18, 2: 1 << 19, 3: 1 << 20, 10: 1 << 20}  # words in a row → kinds counted at once
SIGNED = DedupOptions(url=True, exact=True, minhash=False, paragraph=False)
EXAMPLES = 10
_BATCH = 1 << 18  # words that are counted together
_LANGUAGES = 200  # documents of a file whose language is found, where none was noted
# A place is a file, a document in it, and a word in that.
_DOCUMENT_BITS, _WORD_BITS = 22, 21


@dataclass
class Summary:
    """One or several files of documents.

    Attributes:
        characters, words: of documents.
        bytes: of texts in UTF-8.
        frequent, different: words in a row → which, and how many.
        domains, top_level, schemes: of URLs; languages, licences.
        details: personal details by kind, and with_details: documents with some.
        tests: documents with test items by name of the file; items: which; test_examples: {id, excerpt} each.
    """

    characters: Histogram = field(default_factory=Histogram)
    words: Histogram = field(default_factory=Histogram)
    bytes: int = 0
    frequent: dict[int, MisraGries] = field(default_factory=lambda: {n: MisraGries(c) for n, c in CAPACITIES.items()})
    different: dict[int, HyperLogLog] = field(default_factory=lambda: {n: HyperLogLog() for n in CAPACITIES})
    domains: Tally = field(default_factory=Tally)
    top_level: Tally = field(default_factory=Tally)
    schemes: Tally = field(default_factory=Tally)
    languages: Tally = field(default_factory=Tally)
    licences: Tally = field(default_factory=Tally)
    details: Counter[str] = field(default_factory=Counter)
    with_details: int = 0
    tests: Counter[str] = field(default_factory=Counter)
    items: dict[str, set[int]] = field(default_factory=dict)
    test_examples: list[dict[str, str]] = field(default_factory=list)

    def merge(self, other: Summary) -> None:
        """Add the summary of later files."""
        for name in ("characters", "words", "domains", "top_level", "schemes", "languages", "licences"):
            getattr(self, name).merge(getattr(other, name))
        for n in CAPACITIES:
            self.frequent[n].merge(other.frequent[n])
            self.different[n].merge(other.different[n])
        self.bytes, self.with_details = self.bytes + other.bytes, self.with_details + other.with_details
        self.details.update(other.details)
        self.tests.update(other.tests)
        for name, numbers in other.items.items():
            self.items.setdefault(name, set()).update(numbers)
        self.test_examples = (self.test_examples + other.test_examples)[:EXAMPLES]


@dataclass(frozen=True)
class ReportContext:
    """What all workers know.

    Attributes:
        keys: a folder for keys of documents.
        against: test items to look for; paths relative to `base`.
    """

    keys: Path
    against: DecontaminateOptions
    base: Path


def summarise(context: ReportContext, numbered: tuple[int, Path]) -> Summary:
    """Sum up one file; keys of its documents go into `context.keys`.

    Args:
        context: what all workers know.
        numbered: the file, and its number among all files.
    """
    number, path = numbered
    summary, runs = Summary(), _Ngrams(number)
    signer = Signer(SIGNED)
    tests = evaluation_text(context.against, context.base) if context.against.against else None
    for place, document in enumerate(read_documents(path)):
        words = Words(document.text)
        signer.add(document, words)
        _count(summary, document, len(words), place)
        runs.add(words.hashes, place, summary)
        if tests is not None:
            _find_tests(summary, document, words, tests)
    runs.flush(summary)
    for frequent in summary.frequent.values():
        frequent.settle()  # a summary travels between processes
    signer.save(context.keys / f"{number:06d}.npz")
    return summary


def text_at(files: Sequence[Path], places: Iterable[int], n: int) -> dict[int, str]:
    """The n words in a row at each of some places; each file is read up to the last of its places."""
    wanted: dict[int, dict[int, list[tuple[int, int]]]] = {}
    for place in places:
        file, number, word = _unpack(place)
        wanted.setdefault(file, {}).setdefault(number, []).append((word, place))
    texts = {}
    for file, by_document in wanted.items():
        for number, document in enumerate(itertools.islice(read_documents(files[file]), max(by_document) + 1)):
            for word, place in by_document.get(number, ()):
                words = Words(document.text)
                run = np.flatnonzero(words.hashes)[word : word + n].tolist()
                texts[place] = " ".join(spelled(words[at]) for at in run)
    return texts


class _Ngrams:
    """Words in a row of documents, counted in batches; words without a letter or digit are passed over."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._hashes: list[Hashes] = []
        self._numbers: list[int] = []
        self._count = 0

    def add(self, hashes: Hashes, document: int, summary: Summary) -> None:
        self._hashes.append(hashes[hashes != 0])
        self._numbers.append(document)
        self._count += len(hashes)
        if self._count >= _BATCH:
            self.flush(summary)

    def flush(self, summary: Summary) -> None:
        for n in CAPACITIES if self._hashes else ():
            runs = [ngrams(hashes, n) for hashes in self._hashes]
            places = [
                _pack(self._file, number, np.arange(len(run))) for number, run in zip(self._numbers, runs, strict=True)
            ]
            together = np.concatenate(runs)
            summary.frequent[n].add(together, np.concatenate(places))
            summary.different[n].add(together)
        self._hashes, self._numbers, self._count = [], [], 0


def _pack(file: int, document: int, words: NDArray[np.int64]) -> NDArray[np.int64]:
    base = (file << _DOCUMENT_BITS | min(document, (1 << _DOCUMENT_BITS) - 1)) << _WORD_BITS
    return base + np.minimum(words, (1 << _WORD_BITS) - 1)


def _unpack(place: int) -> tuple[int, int, int]:
    document = place >> _WORD_BITS
    word = place & ((1 << _WORD_BITS) - 1)
    return document >> _DOCUMENT_BITS, document & ((1 << _DOCUMENT_BITS) - 1), word


def _count(summary: Summary, document: Document, n_words: int, place: int) -> None:
    summary.characters.add(len(document.text))
    summary.words.add(n_words)
    summary.bytes += n_bytes(document.text)
    summary.licences.add(document.licence or "not named", n_words)
    language = document.meta.get("language") or (_language(document.text) if place < _LANGUAGES else None)
    if language:
        summary.languages.add(str(language), n_words)
    details = find_pii(document.text)
    summary.details.update(detail.kind for detail in details)
    summary.with_details += bool(details)
    if document.url:
        try:
            parts = urlsplit(document.url)
            host = parts.hostname or ""
        except ValueError:
            return
        summary.schemes.add(parts.scheme or "none", n_words)
        if host:
            summary.domains.add(host.removeprefix("www."), n_words)
            summary.top_level.add(
                host.rpartition(".")[2] if not host.replace(".", "").isdigit() else "address", n_words
            )


def _find_tests(summary: Summary, document: Document, words: Words, tests: EvaluationText) -> None:
    names = set()
    for match in tests.find(words):
        if match.item.name not in names:
            summary.tests[match.item.name] += 1
            names.add(match.item.name)
            if len(summary.test_examples) < EXAMPLES:
                excerpt = f"{match.item.name}, item {match.item.number}: {document.text[match.start : match.stop]}"
                summary.test_examples.append({"id": document.id, "excerpt": excerpt})
        summary.items.setdefault(match.item.name, set()).add(match.item.number)


def _language(text: str) -> str | None:
    identifier = _identifier()
    return None if identifier is None else str(identifier.classify(text[:1000])[0])


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
