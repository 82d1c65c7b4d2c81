"""The command line: one file a verb in `verbs/`, so that the list of files is what camelid can do.

A verb of two words, as `camelid arena rate`, is a folder with a file for each second word. A verb has a docstring
whose first line is its help, and a function `run` whose parameters are its flags.
Nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from camelid.errors import CamelidError, OptionError, one_of
from camelid.streams import ReaderLeftError, give_up_output, open_streams, printable

PROGRAM = "camelid"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with one of the statuses of docs/names.md."""
    open_streams()
    _take_signals()
    status = _status_of(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()  # after a mistake something may be left that cannot be written either
    except (CamelidError, OSError):
        give_up_output()
    gc.freeze()  # Python looks through all objects before it leaves, for 50 ms, and finds nothing that matters any more
    sys.exit(status)


def _status_of(arguments: list[str]) -> int:
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
    except CamelidError as error:
        status = _fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        status = 128 + signal.SIGINT
    except ReaderLeftError:
        status = 0
    except SystemExit as end:  # a signal; or rich, whose consoles leave with 1 when the reader has left
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        status = 0 if isinstance(end.__context__, ReaderLeftError) else code
    except OSError as error:  # a place that cannot be read or written, for which no better words were found
        logging.getLogger(PROGRAM).debug("here:", exc_info=True)
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        status = _fail(f"{where}{error.strerror or error}; check the place, who may write there, and its free space")
    except MemoryError:
        status = _fail("memory: there is not enough of it; end other programs, or choose something smaller")
    return status


def _take_signals() -> None:
    """Let SIGTERM and SIGHUP clean up as Ctrl-C does; what we were started to ignore, as under nohup, stays ignored."""
    ours = os.getpid()

    def leave(number: int, frame: object) -> None:
        if os.getpid() != ours:  # a copy of this process, which has nothing to clean up
            os._exit(128 + number)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # which alone may
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, leave)


def verb_lines(within: str = "") -> dict[str, str]:
    """Verb, or second word of the verb `within`, → the first line of its file's docstring, which is not imported."""
    import ast

    lines = {}
    for verb, path in _files(within).items():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines[verb] = docstring.partition("\n")[0]
    return lines


def _files(within: str = "") -> dict[str, Path]:
    """Verb, or second word of the verb `within`, → the file that says what it is."""
    paths = (Path(__file__).parent / "verbs" / within).glob("[a-z]*")
    files = {path.stem: path / "__init__.py" if path.is_dir() else path for path in paths}
    return {verb: path for verb, path in sorted(files.items()) if path.suffix == ".py" and path.is_file()}


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _overview()
        return 0
    if arguments[0] == "--version":
        from camelid import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    words = _words(arguments)
    if words is None:
        _overview(arguments[0])
        return 0
    from camelid.cli.flags import run_verb
    from camelid.log import set_up

    set_up()
    gc.set_threshold(100_000, 20, 100)  # a start makes many objects and no garbage: 20 ms of the time to the first text
    return run_verb(" ".join(words), arguments[len(words) :])


def _words(arguments: list[str]) -> tuple[str, ...] | None:
    """The verb that is meant, of one word or two; None: what the first word alone can do is asked for."""
    verb, *rest = arguments
    files = _files()  # their texts are for the overview: reading them takes 20 ms
    if verb not in files:
        raise OptionError(f"{verb}: no such verb; {one_of(verb, list(files))}")
    if files[verb].name != "__init__.py":
        return (verb,)
    if not rest or rest[0] in ("-h", "--help", "help"):
        return None
    if rest[0] not in (names := list(_files(verb))):
        raise OptionError(f"{verb} {rest[0]}: no such verb; {one_of(rest[0], names)}")
    return verb, rest[0]


def _overview(within: str = "") -> None:
    from rich.table import Table

    from camelid.console import Terminal

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for verb, line in verb_lines(within).items():
        table.add_row(f"[bold cyan]{verb}[/]", line)
    console = Terminal()
    program = f"{PROGRAM} {within}".rstrip()
    what = verb_lines()[within] if within else "the whole life of an open Llama"
    console.print(f"\n[bold]{program}[/] — {what}\n\n  {program} VERB …\n")
    console.print(table)
    console.print(f"\n  {program} VERB --help   what a verb does and its flags")
    console.print("  --json             on verbs that report: one JSON object on standard output\n")


def _fail(message: str) -> int:
    try:
        sys.stdout.flush()
    except (CamelidError, OSError):
        give_up_output()
    print(f"{PROGRAM}: {printable(message)}", file=sys.stderr)
    return 2
