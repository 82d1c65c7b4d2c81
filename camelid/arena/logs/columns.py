"""The columnar file `.battles`: an uncompressed NumPy archive of what `Battles` has, read in one go."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from camelid.arena.battles import UNKNOWN, Battles
from camelid.errors import FormatError, MissingError
from camelid.files import whole_file

ENDING = ".battles"
_NAMES = ("models", "voters", "languages")
_EMPTY = {"time": np.nan, "voter": UNKNOWN, "prompt": UNKNOWN, "language": UNKNOWN, "turns": 0}
_ALWAYS = ("time", "voter")  # columns that Battles has even where nothing is said


def save_battles(battles: Battles, path: Path) -> None:
    """Write battles; columns in which nothing is said take no room.

    Raises:
        ResourceError: the place cannot be written.
    """
    arrays: dict[str, Any] = {}
    for each in fields(battles):
        value = getattr(battles, each.name)
        if isinstance(value, np.ndarray) and len(value) and not _says_nothing(each.name, value):
            arrays[each.name] = _narrow(value) if each.name in ("a", "b") else value
    arrays |= {f"number {name}": column for name, column in battles.numbers.items()}
    about = {"form": 1, **{name: getattr(battles, name) for name in _NAMES}}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with whole_file(path) as file:
        np.savez(file, **arrays)


def open_battles(path: Path) -> Battles:
    """Read what `save_battles` wrote.

    Raises:
        MissingError: there is no such file.
        FormatError: it is something else, or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes())
        return _battles(arrays, about)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; give the log of an arena") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise FormatError(f"{path}: is no whole {ENDING} file; make it again from the log") from None


def _battles(arrays: dict[str, Any], about: dict[str, Any]) -> Battles:
    n, names = len(arrays["a"]), {name: tuple(about[name]) for name in _NAMES}
    values: dict[str, Any] = {"numbers": {}}
    for name, array in arrays.items():
        if len(array) != n:
            raise ValueError(name)
        if name.startswith("number "):
            values["numbers"][name.removeprefix("number ")] = array
        else:
            values[name] = array.astype(np.int32) if name in ("a", "b") else array
    for name in _ALWAYS:
        values.setdefault(name, np.full(n, _EMPTY[name], np.float64 if name == "time" else np.int32))
    for name, codes in (("models", "a"), ("models", "b"), ("voters", "voter"), ("languages", "language")):
        column = values.get(codes)
        if column is not None and n and (column.max() >= len(names[name]) or column.min() < UNKNOWN):
            raise ValueError(codes)
    if n and not 0 <= values["winner"].min() <= values["winner"].max() <= 3:
        raise ValueError("winner")
    return Battles(**{**values, **names})


def _says_nothing(name: str, column: Any) -> bool:
    if name not in _EMPTY:
        return False
    return bool(np.isnan(column).all() if name == "time" else (column == _EMPTY[name]).all())


def _narrow(codes: Any) -> Any:
    return codes.astype(np.uint8 if codes.max(initial=0) < 256 else np.uint16 if codes.max() < 65536 else np.int32)
