"""The command line: one file a verb, so that the list of files is what camelid can do.

A verb's file has a docstring whose first line is its help, and a function `run` whose parameters are its flags.
Nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from camelid.errors import CamelidError, OptionError, one_of

PROGRAM = "camelid"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 the user's mistake (one line says which), 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = _dispatch(arguments)
    except CamelidError as error:
        status = _fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of a pipe has left; say nothing, and let nothing be flushed to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    gc.freeze()  # Python looks through all objects before it leaves, for 50 ms, and finds nothing that matters any more
    sys.exit(status)


def verbs() -> dict[str, str]:
    """Verb → the first line of its file's docstring, read without importing it."""
    import ast

    found = {}
    for path in _files():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = docstring.partition("\n")[0]
    return found


def _files() -> list[Path]:
    return sorted(Path(__file__).parent.glob("[a-z]*.py"))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _overview()
        return 0
    if arguments[0] == "--version":
        from camelid import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    verb = arguments[0]
    names = [path.stem for path in _files()]  # their texts are for the overview: reading them takes 20 ms
    if verb not in names:
        raise OptionError(f"{verb}: no such verb; {one_of(verb, names)}")
    from camelid.cli._run import run_verb
    from camelid.log import set_up

    set_up()
    gc.set_threshold(100_000, 20, 100)  # a start makes many objects and no garbage: 20 ms of the time to the first text
    return run_verb(verb, arguments[1:])


def _overview() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for verb, line in verbs().items():
        table.add_row(f"[bold cyan]{verb}[/]", line)
    console = Console(highlight=False)
    console.print(f"\n[bold]{PROGRAM}[/] — the whole life of an open Llama\n\n  {PROGRAM} VERB …\n")
    console.print(table)
    console.print(f"\n  {PROGRAM} VERB --help   what a verb does and its flags")
    console.print("  --json             on verbs that report: one JSON object on standard output\n")


def _fail(message: str) -> int:
    sys.stdout.flush()
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return 2
