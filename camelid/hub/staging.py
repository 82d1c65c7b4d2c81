"""Files on their way in: room for them, their hashes, and the rename that makes them visible.

A file is `name.part` until its bytes have been checked. A bad one becomes `name.bad`, so that nothing is lost and
nothing bad is gone on from.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from camelid.errors import ResourceError, VerifyError

Report = Callable[[str, int, int | None], None]  # what is being done, bytes done, bytes in all if known

# What pulls leave in a staging folder on their way.
OWN_NAMES = ("commit",)
OWN_SUFFIXES = (".part", ".bad", ".version")

ELSEWHERE = "set CAMELID_HOME elsewhere"  # what to do where a disk is too small
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Record:
    """One file of a model: its name in the model's folder, with / if it is deeper, its size, its SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Arrival:
    """What a source brought: files now in the staging folder, and where they come from."""

    files: list[Record]
    source: str
    revision: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Proof:
    """What is known beforehand about a file's content; git_sha1 is the id git gives to a file."""

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


def part_of(target: Path) -> Path:
    """Where a file's bytes go until they have been checked."""
    return target.with_name(f"{target.name}.part")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what a disk says into one line; what arrived before is kept.

    Raises:
        ResourceError: the disk or quota is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk or quota is full; free some and pull again, it goes on from here"
        else:
            why = error.strerror or str(error)
            reason = f"cannot be written ({why}); check its permissions, or set CAMELID_HOME elsewhere"
        raise ResourceError(f"{folder}: {reason}") from None


def copy_stream(stream: BinaryIO, target: Path, size: int | None, report: Report) -> None:
    """Write all of `stream` to the target's part, anew."""
    done = told = 0
    with part_of(target).open("wb") as out:
        while chunk := stream.read(_CHUNK):
            out.write(chunk)
            done += len(chunk)
            if done - told >= 8 * _CHUNK:
                told = done
                report(target.name, done, size)
    report(target.name, done, size)


def finish(target: Path, proof: Proof, report: Report, name: str | None = None) -> Record:
    """Check the part of `target` against what is known, and give it its name.

    Args:
        name: of its record, where it lies in a folder within the model's.

    Raises:
        VerifyError: size or hash differ; the part has become `name.bad`.
    """
    part = part_of(target)
    size = part.stat().st_size
    sha256, git_sha1 = _hashes(part, size, report)
    problem = None
    if proof.size is not None and size != proof.size:
        problem = f"{size} bytes, not {proof.size}"
    elif proof.sha256 is not None and sha256 != proof.sha256.lower():
        problem = f"SHA-256 differs (got {sha256[:16]}…, on record {proof.sha256[:16]}…)"
    elif proof.git_sha1 is not None and git_sha1 != proof.git_sha1.lower():
        problem = f"git's hash differs (got {git_sha1}, on record {proof.git_sha1})"
    if problem is not None:
        bad = target.with_name(f"{target.name}.bad")
        part.replace(bad)
        raise VerifyError(f"{target.name}: {problem}; set aside as {bad}; pull again for a fresh copy")
    with part.open("rb") as file:
        os.fsync(file.fileno())  # a name must not outlive its bytes in a power cut
    part.replace(target)
    return Record(name or target.name, size, sha256)


def record(path: Path, report: Report) -> Record:
    """The record of a file that is there already."""
    size = path.stat().st_size
    return Record(path.name, size, _hashes(path, size, report)[0])


def _hashes(path: Path, size: int, report: Report) -> tuple[str, str]:
    """SHA-256 of a file, and its id in git's object format: SHA-1 over "blob", its size, a zero byte, its content."""
    sha256 = hashlib.sha256()
    git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(8 * _CHUNK):
            sha256.update(chunk)
            git.update(chunk)
            done += len(chunk)
            report(f"checking {path.name.removesuffix('.part')}", done, size)
    return sha256.hexdigest(), git.hexdigest()
