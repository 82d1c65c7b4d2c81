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


def defined(tree: ast.Module) -> set[str]:
    """Names that the statements of a program define at its top: functions, classes, variables, imports."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            continue  # a module that the test does not import itself is imported for it, not taken from the program
        else:
            stored = (inner for inner in ast.walk(node) if isinstance(inner, ast.Name))
            names |= {inner.id for inner in stored if isinstance(inner.ctx, ast.Store)}
    return names


def used(tree: ast.Module) -> set[str]:
    """Names that a test reads and does not define."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own = defined(tree) | _imported(tree) | arguments | {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
    return {node.id for node in nodes if isinstance(node.ctx, ast.Load)} - own


def _imported(tree: ast.Module) -> set[str]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return {(alias.asname or alias.name).partition(".")[0] for node in nodes for alias in node.names}


def modules_for(tree: ast.Module) -> set[str]:
    """Modules of the standard library that a test uses, as `math.isclose`, and does not import."""
    places = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    modules = {node.id for node in places if isinstance(node, ast.Name)} & set(sys.stdlib_module_names)
    return modules - _imported(tree) - defined(tree)


def imports_of(modules: set[str]) -> str:
    """Statements that import modules."""
    return "".join(f"import {name}\n" for name in sorted(modules))


def find_calls(source: str, program: str, entry_point: str | None = None) -> Check:
    """The test with its calls: the names that it uses and the program defines. A function that is called as one of
    Python's own is meant to be the program's, if the program defines it.

    Raises:
        FormatError: the test is no Python.
    """
    try:
        test = parsed(source)
    except (SyntaxError, ValueError) as error:
        raise FormatError(f"test: is no Python: {error}") from None
    names, modules = used(test), modules_for(test)
    try:
        there = defined(parsed(program))
    except (SyntaxError, ValueError):
        there = names - set(dir(builtins))  # the program fails by itself
    return Check(source, tuple(sorted((names & there) - modules)), entry_point, imports_of(modules))
