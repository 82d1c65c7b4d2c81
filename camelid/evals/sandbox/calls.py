"""Which names of a program a test calls, where nobody says so."""

from __future__ import annotations

import ast
import builtins
import sys
import threading

from camelid.errors import FormatError
from camelid.evals.sandbox.sandbox import Check

_PARSING = threading.Lock()  # Python 3.11 counts its depth for all threads at once, and takes a change for an error


def parsed(source: str) -> ast.Module:
    """A program as a tree; for several threads.

    Raises:
        SyntaxError, ValueError: the source is no Python.
    """
    with _PARSING:
        return ast.parse(source)


def defined(source: str) -> set[str]:
    """Names that the statements of a program define at its top: functions, classes, variables, imports.

    Raises:
        SyntaxError, ValueError: the source is no Python.
    """
    names: set[str] = set()
    for node in parsed(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            continue  # a module that the test does not import itself is imported for it, not taken from the program
        else:
            stored = (inner for inner in ast.walk(node) if isinstance(inner, ast.Name))
            names |= {inner.id for inner in stored if isinstance(inner.ctx, ast.Store)}
    return names


def used(source: str) -> set[str]:
    """Names that a test reads and does not define.

    Raises:
        SyntaxError, ValueError: the source is no Python.
    """
    nodes = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.Name)]
    arguments = {node.arg for node in ast.walk(parsed(source)) if isinstance(node, ast.arg)}
    own = (
        defined(source) | _imported(source) | arguments | {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
    )
    return {node.id for node in nodes if isinstance(node.ctx, ast.Load)} - own


def _imported(source: str) -> set[str]:
    nodes = (node for node in ast.walk(parsed(source)) if isinstance(node, ast.Import | ast.ImportFrom))
    return {(alias.asname or alias.name).partition(".")[0] for node in nodes for alias in node.names}


def imports_for(source: str) -> str:
    """Imports of the modules of the standard library that a test uses, as `math.isclose`, and does not import."""
    tree = parsed(source)
    places = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    modules = {node.id for node in places if isinstance(node, ast.Name)} & set(sys.stdlib_module_names)
    return "".join(f"import {name}\n" for name in sorted(modules - _imported(source) - defined(source)))


def find_calls(source: str, program: str, entry_point: str | None = None) -> Check:
    """The test with its calls: the names that it uses and the program defines. A function that is called as one of
    Python's own is meant to be the program's, if the program defines it.

    Raises:
        FormatError: the test is no Python.
    """
    try:
        names, setup = used(source), imports_for(source)
    except (SyntaxError, ValueError) as error:
        raise FormatError(f"test: is no Python: {error}") from None
    try:
        there = defined(program)
    except (SyntaxError, ValueError):
        there = names - set(dir(builtins))  # the program fails by itself
    modules = {line.split()[1] for line in setup.splitlines()}
    return Check(source, tuple(sorted((names & there) - modules)), entry_point, setup)
