"""Where documents may come from and under which licence: lists of domains, URLs and licences."""

from __future__ import annotations

import fnmatch
import functools
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from camelid.data.document import Document
from camelid.data.stage_stats import StageStats
from camelid.data.word_hashes import Words
from camelid.errors import FormatError, MissingError
from camelid.options import Options


class Url(Options):
    """Sites and pages that are left out."""

    block: tuple[str, ...] = Field((), description="Domains, with all below them, or whole URLs.")
    files: tuple[str, ...] = Field((), description="Files with one domain or URL a line, # before a remark.")


class Licence(Options):
    """Licences, by patterns such as CC-BY-*; capitals do not matter."""

    keep: tuple[str, ...] = Field((), description="If given, only these stay.")
    drop: tuple[str, ...] = Field((), description="These never stay.")


def url(document: Document, words: Words, options: Url, stats: StageStats) -> Document | str:
    """Drop documents from blocked sites; those without a URL stay."""
    if document.url is None:
        return document
    bad = blocked(options)
    if _bare(document.url) in bad:
        return "blocked URL"
    parts = domain(document.url).split(".")
    if any(".".join(parts[i:]) in bad for i in range(len(parts))):
        return "blocked domain"
    return document


def licence(document: Document, words: Words, options: Licence, stats: StageStats) -> Document | str:
    """Drop documents by licence; one without any stays only if `keep` is empty."""
    name = document.licence.lower()
    if any(fnmatch.fnmatchcase(name, pattern.lower()) for pattern in options.drop):
        return "licence that is dropped"
    if options.keep and not any(fnmatch.fnmatchcase(name, pattern.lower()) for pattern in options.keep):
        return "licence that is not kept" if name else "no licence"
    return document


def domain(address: str) -> str:
    """The host of a URL, in lower case; empty if it has none."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:  # brackets that are no IPv6 address
        return ""


def blocked(options: Url) -> frozenset[str]:
    """Domains and URLs of all lists.

    Raises:
        MissingError: a list that is not there.
        FormatError: one that is not UTF-8.
    """
    return _blocked(options.block, options.files)


@functools.cache
def _blocked(block: tuple[str, ...], files: tuple[str, ...]) -> frozenset[str]:
    lines = list(block)
    for name in files:
        try:
            lines += Path(name).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise MissingError(f"data.rules.url.files: {name}: {error.strerror}; check the path") from None
        except UnicodeDecodeError as error:
            raise FormatError(f"data.rules.url.files: {name}: not UTF-8 at byte {error.start}; convert it") from None
    return frozenset(_bare(line.partition("#")[0].strip()) for line in lines if line.partition("#")[0].strip())


def _bare(address: str) -> str:
    """A URL or domain without scheme, fragment and a slash at its end, in lower case up to its path."""
    rest = address.partition("#")[0].partition("//")[2] or address.partition("#")[0]
    host, slash, path = rest.partition("/")
    return (host.lower() + slash + path).rstrip("/")
