"""A corpus that is on every machine with Python: its own reference and the documentation in its standard library.

Nothing is imported and nothing run: modules are read as syntax trees. The texts are those of the Python that runs, so
another Python gives another corpus; its version is in the metadata.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from camelid.data.document import Document
from camelid.data.reading.fields import Malformed
from camelid.data.reading.files import FilePart, whole_part
from camelid.data.reading.options import SourceOptions
from camelid.errors import MissingError

Section: TypeAlias = Literal["topics", "docstrings", "source"]

_TOPICS = "topics"
# Tests, generated tables, programs with their own documentation, and what is not Python's.
_LEFT_OUT = {
    "__pycache__",
    "dist-packages",
    "encodings",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
}
_LEFT_OUT |= {"test", "tests", "turtledemo", "idle_test"}
_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Source(SourceOptions):
    """Python's own documentation."""

    licence: str = Field("PSF-2.0")
    parts: tuple[Section, ...] = Field(
        ("topics", "docstrings"),
        min_length=1,
        description="The language reference's topics, the library's docstrings by module, and modules' source.",
    )


def file_parts(options: Source, folder: Path) -> list[FilePart]:
    """The reference, then each module of the standard library by its name.

    Raises:
        MissingError: this Python comes without them.
    """
    parts = []
    topics = importlib.util.find_spec("pydoc_data.topics") if _TOPICS in options.parts else None
    if topics is not None and topics.origin is not None:
        parts.append(whole_part(topics.origin, _TOPICS))
    if set(options.parts) - {_TOPICS}:
        library = Path(sysconfig.get_paths()["stdlib"])
        parts += [whole_part(str(path), path.relative_to(library).as_posix()) for path in _modules(library)]
    if not parts:
        raise MissingError(f"data.sources {options.name}: this Python has no documentation; install its library")
    return parts


def read(part: FilePart, options: Source) -> Iterator[Document | Malformed]:
    """The documents of a module, or of the reference."""
    data = Path(part.path).read_bytes()
    try:
        text = data.decode("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old ways to write a string
            tree = ast.parse(text)
    except (UnicodeDecodeError, SyntaxError) as error:
        yield Malformed("not Python", part.label, str(error))
        return
    meta = {"python": platform.python_version()}
    if part.label == _TOPICS:
        for name, topic in sorted(_topics(tree).items()):
            yield Document(topic, f"topics/{name}", options.name, licence=options.licence, meta=meta)
        return
    if "docstrings" in options.parts and (text := documentation(tree, _dotted(part.label))):
        yield Document(text, f"docstrings/{part.label}", options.name, licence=options.licence, meta=meta)
    if "source" in options.parts and data.strip():
        yield Document(data.decode(), f"source/{part.label}", options.name, licence=options.licence, meta=meta)


def documentation(tree: ast.Module, name: str) -> str:
    """What a module says of itself and of what it defines, with signatures; empty if it says nothing."""
    parts = []
    if docstring := ast.get_docstring(tree):
        parts.append(f"{name}\n\n{docstring}")
    parts += _described(tree, "")
    return "\n\n".join(parts)


def _described(owner: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    """Classes and functions that have a docstring, in their order, those of classes under them."""
    for node in owner.body:
        if not isinstance(node, _NAMED):
            continue
        if docstring := ast.get_docstring(node):
            yield f"{_signature(node, prefix)}\n\n{docstring}"
        if isinstance(node, ast.ClassDef):
            yield from _described(node, f"{prefix}{node.name}.")


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, prefix: str) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        return f"class {prefix}{node.name}({bases})" if bases else f"class {prefix}{node.name}"
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{kind} {prefix}{node.name}({ast.unparse(node.args)})"


def _topics(tree: ast.Module) -> dict[str, str]:
    """The dictionary that `pydoc_data.topics` defines."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(node.value)
            return topics
    return {}


def _modules(library: Path) -> list[Path]:
    paths = []
    for at, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")]
        paths += [Path(at, name) for name in names if name.endswith(".py")]
    return sorted(paths)


def _dotted(label: str) -> str:
    return label.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
