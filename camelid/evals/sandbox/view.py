"""Which files a program sees: the interpreter's, the libraries that it loads, and packages that were named."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from camelid.errors import MissingError

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")


@dataclass(frozen=True)
class View:
    """Absolute paths.

    Attributes:
        readable: files, and folders with all that is below them.
        hidden: folders among these that are not shown: packages of the machine.
        packages: that were named; they are shown even in a hidden folder.
        paths: to be searched for the packages that were named.
    """

    readable: tuple[str, ...]
    hidden: tuple[str, ...]
    packages: tuple[str, ...]
    paths: tuple[str, ...]


def find_view(imports: Sequence[str]) -> View:
    """The view of a program that may import these packages, with what they need.

    Raises:
        MissingError: a package is not installed.
    """
    installed = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}  # not a virtual environment's
    standard = {sysconfig.get_path(name, vars=installed) for name in ("stdlib", "platstdlib")}
    packages = {place for name in imports for place in _places(name)}
    libraries = Path(sys.base_prefix) / "lib"
    beside = () if libraries.parent in (Path("/"), Path("/usr")) else (str(path) for path in libraries.glob("lib*.so*"))
    readable = sorted({*standard, *_SYSTEM, *beside})
    hidden = [str(Path(folder) / name) for folder in sorted(standard) for name in ("site-packages", "dist-packages")]
    hidden += ["/usr/lib/python3/dist-packages"]
    paths = sorted({str(place.parent) for place in packages})
    shown = tuple(sorted(str(place) for place in packages))
    return View(tuple(readable), tuple(hidden), shown, tuple(paths))


def _places(name: str, seen: set[str] | None = None) -> set[Path]:
    """Files and folders that `import name` reads: the package's own, and those of what it requires."""
    seen = set() if seen is None else seen
    if name in seen:
        return set()
    seen.add(name)
    spec = importlib.util.find_spec(name) if re.fullmatch(r"\w+", name) else None
    if spec is None or not (spec.origin or spec.submodule_search_locations):
        raise MissingError(f"--allow-import {name}: is not installed here; install it, or leave it out")
    places = {Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]}
    for distribution in importlib.metadata.packages_distributions().get(name, []):
        beside = Path(str(importlib.metadata.distribution(distribution).locate_file(f"{name}.libs")))
        places |= {beside} if beside.is_dir() else set()
        for requirement in importlib.metadata.requires(distribution) or []:
            if "extra" not in requirement:
                for needed in _modules_of(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]):
                    places |= _places(needed, seen)
    return places


def _modules_of(distribution: str) -> list[str]:
    wanted = re.sub(r"[-_.]+", "-", distribution).lower()
    return [
        module
        for module, names in importlib.metadata.packages_distributions().items()
        if any(re.sub(r"[-_.]+", "-", name).lower() == wanted for name in names) and re.fullmatch(r"\w+", module)
    ]
