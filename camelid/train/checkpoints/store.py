"""The folder in which checkpoints are kept: their names, their hashes, and how one appears, is found and goes.

    pretrain/                            what `run_layout.py` tells, and
    ├── .saving-step3000-tokens12M/      not complete yet; swept away by the next process that trains here
    └── .removing-step1000-tokens4M/     being deleted

Names have the step as it is, without zeros before it (as OLMo's revisions), and the tokens in three words or less:
programs sort by number, and no run must know beforehand how long it will be. No torch here.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from camelid import run_layout
from camelid.errors import FormatError, ResourceError, UnsupportedError
from camelid.files import lock, writing
from camelid.pedigree import describe_file
from camelid.run_layout import BEFORE, DAMAGED, LATEST, checkpoint_step, step_folders
from camelid.train.runs import Checkpoint, Run

log = logging.getLogger(__name__)

NAME, STATE, folder_name = run_layout.CHECKPOINT, run_layout.STATE, run_layout.checkpoint_name
VERSION = 1
_SAVING, _REMOVING, _LOCK = ".saving-", ".removing-", ".lock"
_FIELDS: dict[str, type] = {"step": int, "tokens": int, "seed": int, "seconds": float, "data": str}
_FIELDS |= dict.fromkeys(("files", "notes", "options", "model"), dict)
_HASHERS = 4  # threads; one SHA-256 is slower than a disk


def saving(folder: Path, name: str) -> Path:
    """Where a checkpoint is written: its own name, in a hidden folder."""
    return folder / f"{_SAVING}{name}" / name


def read_record(checkpoint: Path) -> dict[str, Any]:
    """What checkpoint.json says.

    Raises:
        FormatError: it is not there, or not a record of this checkpoint.
        UnsupportedError: a later camelid wrote it.
    """
    try:
        record = json.loads((checkpoint / NAME).read_text(encoding="utf-8"))
        if isinstance(record["version"], int) and record["version"] > VERSION:
            raise UnsupportedError(
                f"{checkpoint / NAME}: version {record['version']}, this camelid reads {VERSION}; update camelid"
            )
        named = checkpoint_step(checkpoint.name) == record["step"]
        typed = all(isinstance(record[name], kind) for name, kind in _FIELDS.items())
        if named and typed and all({"bytes", "sha256"} <= set(file) for file in record["files"].values()):
            return dict(record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise FormatError(f"{checkpoint / NAME}: not there or damaged; the checkpoint cannot be trusted")


def read_files(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """File → bytes and SHA-256, as its record says; nothing if there is no such checkpoint, or no record of it."""
    try:
        return dict(read_record(checkpoint)["files"])
    except FormatError:
        return {}


def files_of(checkpoint: Path) -> list[str]:
    """Every file of a checkpoint but its record, relative to it, sorted."""
    files = (path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if path.as_posix() != NAME)


def describe(checkpoint: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of some files, by name."""

    def hashed(name: str) -> dict[str, Any]:
        about = describe_file(checkpoint / name)
        return {"bytes": about["bytes"], "sha256": about["sha256"]}

    with ThreadPoolExecutor(_HASHERS) as pool:
        return dict(zip(names, pool.map(hashed, names), strict=True))


def damage(checkpoint: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What is wrong with some of a checkpoint's files, read whole; None if nothing is."""
    for name, said in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != said["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {said['bytes']}"
    try:
        described = describe(checkpoint, list(files))
    except OSError as error:
        return f"{Path(error.filename or checkpoint).name} cannot be read ({error.strerror})"
    changed = [name for name, file in described.items() if file["sha256"] != files[name]["sha256"]]
    return f"{changed[0]} has another SHA-256" if changed else None


def write_record(checkpoint: Path, record: Mapping[str, Any]) -> None:
    """Write checkpoint.json, and see everything on the disk, folders too."""
    with (checkpoint / NAME).open("w", encoding="utf-8") as file:
        file.write(json.dumps({"version": VERSION, **record}, indent=2, ensure_ascii=False) + "\n")
    for path in [*checkpoint.rglob("*"), checkpoint, checkpoint.parent]:
        sync(path)


def sync(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def appear(folder: Path, name: str) -> Path:
    """Give a written checkpoint its name; a damaged one that has it goes."""
    partial, target = saving(folder, name), folder / name
    remove(target)
    partial.rename(target)
    sync(folder)
    partial.parent.rmdir()
    return target


def link(folder: Path, name: str) -> None:
    """Let `latest` mean this checkpoint."""
    beside = folder / f".{LATEST}-{os.getpid()}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(name)
    beside.replace(folder / LATEST)
    sync(folder)


def remove(checkpoint: Path) -> None:
    """Let a checkpoint vanish at once, then delete its files."""
    if checkpoint.exists():
        hidden = checkpoint.with_name(f"{_REMOVING}{checkpoint.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        checkpoint.rename(hidden)
        shutil.rmtree(hidden)


def keep(folder: Path, step: int, last: int, every: int) -> None:
    """When the checkpoint of `step` was saved: remove all before it but the `last`, itself included, and those of every
    `every`-th step (0: none)."""
    behind = [checkpoint for checkpoint in Run(folder).checkpoints() if checkpoint.step <= step]
    for checkpoint in behind[:-last]:
        if not every or checkpoint.step % every:
            remove(checkpoint.path)


def put_aside(folder: Path, names: Iterable[str]) -> None:
    """Let damaged checkpoints count no more; a warning says where each is now."""
    for name in names:
        aside = _free(folder, f"{DAMAGED}{name}")
        (folder / name).rename(aside)
        log.warning("%s: kept as %s; delete it if you do not need it", folder / name, aside.name)


def begin_anew(folder: Path) -> None:
    """Move every checkpoint to `before`, so that training starts at step 0; a warning says so."""
    names = [path.name for path in step_folders(folder)]
    if names:
        aside = _free(folder, BEFORE)
        aside.mkdir()
        for name in names:
            (folder / name).rename(aside / name)
        (folder / LATEST).unlink(missing_ok=True)
        log.warning("%s: starts at step 0; the checkpoints before are in %s", folder, aside)


def _free(folder: Path, name: str) -> Path:
    """A name in a folder that is not taken: this one, or one with a number behind it."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(folder / free for free in names if not (folder / free).exists())


def sweep(folder: Path) -> None:
    """Delete what killed processes have left half written or half deleted."""
    for begun in (_SAVING, _REMOVING, f".{LATEST}-"):
        for path in folder.glob(f"{begun}*"):
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


def candidates(folder: Path) -> tuple[list[Checkpoint], dict[str, str]]:
    """Checkpoints with a readable record, the newest first; and the others, each with what is wrong.

    Raises:
        UnsupportedError: a later camelid wrote one.
    """
    readable, damaged = [], {}
    for path in reversed(step_folders(folder)):
        try:
            record = read_record(path)
        except FormatError:
            damaged[path.name] = f"{NAME} is missing or damaged"
        else:
            readable.append(Checkpoint(path, record["step"], record["tokens"]))
    return readable, damaged


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Keep other processes from training in this folder, until the context ends or this process dies.

    Raises:
        ResourceError: another process does, or the folder cannot be written.
    """

    def refuse() -> None:
        raise ResourceError(f"{folder}: another process trains here; wait for it, or choose another name or --out")

    there = folder.exists()
    with ExitStack() as stack:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(folder / _LOCK, refuse))
        try:
            yield
        finally:
            if not there and {path.name for path in folder.iterdir()} <= {_LOCK}:  # nothing came of it
                shutil.rmtree(folder, ignore_errors=True)
