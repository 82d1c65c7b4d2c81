"""The architecture as a test: imports point down and never in a circle, torch stays where it may be, and importing does
nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "camelid"
ROWS = [
    "__main__",
    "cli __init__",
    "release",
    "arena",
    "serve evals",
    "chat train",
    "engine data",
    "weights hub",
    "model tokens",
    "recipe",
    "options pedigree log console run_layout _lazy busy",
    "streams files machine open_file",
    "errors parsing",
]
RANK = {name: -row for row, names in enumerate(ROWS) for name in names.split()}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def nodes_that_run(path: Path) -> Iterator[ast.AST]:
    """Nodes of a file, inside functions too; not those for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    yield from (node for node in ast.walk(tree) if id(node) not in skipped)


def imports(path: Path) -> Iterator[str]:
    """Modules a file imports, inside functions too; not those for type checkers only."""
    for node in nodes_that_run(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            module = node.module or ""
            rooms = [f"camelid.{alias.name}" for alias in node.names if alias.name != "__version__"]
            yield from rooms if module == "camelid" else [module]


def crossing(path: Path) -> Iterator[str]:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "camelid" and len(parts) > 1 and parts[1] != room(path):
            yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    for there in crossing(path):
        assert RANK[room(path)] > RANK[there], f"{room(path)} may not import {there}: it lies not below"


def test_the_rule_can_fail():
    assert RANK["cli"] > RANK["chat"] > RANK["engine"] > RANK["weights"] > RANK["tokens"] > RANK["errors"]
    assert "engine" in set(crossing(PACKAGE / "chat" / "llama.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Module → modules of camelid that it imports, inside functions too."""
    modules = {module_name(path): path for path in FILES}
    graph = {}
    for name, path in modules.items():
        graph[name] = {there for there in imported(path, set(modules)) if there != name}
    return graph


def imported(path: Path, modules: set[str]) -> Iterator[str]:
    """Of `from camelid.room import thing`, the module `thing` if it is one, else the module `camelid.room`."""
    for node in nodes_that_run(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from {full if full in modules else node.module} & modules


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Modules that reach each other: the strongly connected components of more than one module."""
    reachable = {name: reached_from(name, graph) for name in graph}
    rings = {frozenset(there for there in reachable[name] if name in reachable[there]) for name in graph}
    return sorted((set(ring) for ring in rings if len(ring) > 1), key=sorted)


def reached_from(start: str, graph: dict[str, set[str]]) -> set[str]:
    reached, waiting = set[str](), [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def test_modules_do_not_import_in_circles():
    rings = circles(import_graph())
    assert not rings, "\n".join(" ⇄ ".join(sorted(ring)) for ring in rings)


def test_a_circle_would_be_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"e"}, "e": {"f"}, "f": {"d", "a"}}) == [
        {"b", "c"},
        {"d", "e", "f"},
    ]
    assert "camelid.engine.engine" in import_graph()["camelid.chat.llama"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_only_where_it_may_be(path):
    allowed = path.stem.endswith("_torch") or room(path) == "train"
    heavy = {name.split(".")[0] for name in imports(path)} & {"torch", "transformers", "sentencepiece", "tiktoken"}
    assert heavy <= ({"torch"} if allowed else set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_only_define(path):
    """At import a module may define and assign; it may not call for effect, loop or open."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        harmless = ("TYPE_CHECKING", "__name__", "sys.platform")
        if isinstance(node, ast.If) and any(word in ast.unparse(node.test) for word in harmless):
            continue
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        allowed = (ast.Import, ast.ImportFrom, *functions, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.AugAssign)
        if isinstance(node, ast.Try):  # a module that some systems lack
            assert all(isinstance(inner, ast.Import) for inner in node.body)
            continue
        assert is_docstring or isinstance(node, allowed), f"line {node.lineno} does something at import"


def test_import_camelid_is_light():
    code = "import sys, camelid; print(*{'numpy', 'torch', 'pydantic', 'tokenizers', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


LOOKS_OUTSIDE = {"open", "environ", "getenv", "read_text", "read_bytes", "exists", "cwd", "run", "Popen", "urlopen"}


def done_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a module that run when it is imported: bodies of functions do not."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for part in [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]:
            if part is not None:
                yield from done_at_import(part)
        return
    if isinstance(node, ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from done_at_import(child)


def outside(source: str) -> set[str]:
    nodes = (
        node for node in done_at_import(ast.parse(source)) if not isinstance(getattr(node, "ctx", None), ast.Store)
    )
    named = (getattr(node, "attr", getattr(node, "id", "")) for node in nodes)
    return LOOKS_OUTSIDE & set(named)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_look_at_nothing_outside_at_import(path):
    """Files, the environment and other programs are asked when a function needs them, not when a module loads."""
    assert not outside(path.read_text(encoding="utf-8"))


def test_looking_outside_would_be_seen():
    assert outside("X = os.environ['HOME']") == {"environ"}
    assert outside("class A:\n    text = Path('x').read_text()") == {"read_text"}
    assert outside("def f(x=open('y')):\n    pass") == {"open"}
    assert outside("def f():\n    return open('y')\ng = lambda: open('y')") == set()


@pytest.mark.slow
def test_importing_everything_writes_nothing_and_asks_nobody():
    modules = [module_name(path) for path in FILES if not path.stem.endswith("_torch") and path.stem != "__main__"]
    code = (
        "import importlib, sys\n"
        "sys.dont_write_bytecode = True\n"
        "def audit(event, given):\n"
        "    writes = event == 'open' and isinstance(given[1], str) and set(given[1]) & set('wax+')\n"
        "    writes = writes and given[0] != '/dev/null'  # dill, which torch loads if it is there, looks at its kind\n"
        "    if writes or event in ('socket.connect', 'subprocess.Popen', 'os.mkdir'):\n"
        "        sys.exit(f'{event} {given}')\n"
        "sys.addaudithook(audit)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
