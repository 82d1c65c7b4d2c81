"""The conversation loop of `camelid chat`: a prompt with history, answers as Markdown while they are written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markdown import Markdown
from rich.spinner import Spinner

from camelid.chat.conversation import COMMANDS, Conversation, command
from camelid.chat.results import Delta
from camelid.errors import CamelidError, ContextError, OptionError
from camelid.streams import check_text, literal, printable, write

if TYPE_CHECKING:
    from prompt_toolkit.history import History

log = logging.getLogger(__name__)
FENCE = "```"


def talk(conversation: Conversation, history: Path, console: Console) -> None:
    """Ask, answer, repeat, until Ctrl-D or /exit. Ctrl-C stops an answer, not the conversation."""
    ask = _line_reader(history)
    console.print("[dim]Enter sends, Alt-Enter starts a new line, Ctrl-C stops an answer, /help shows commands.[/]\n")
    while True:
        try:
            line = ask().strip()
            check_text([line], "message")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        except OptionError as error:
            console.print(f"[red]{literal(str(error))}[/]\n")
            continue
        if line in ("/exit", "/quit", "/bye"):
            return
        try:
            _one_turn(conversation, line, console)
        except ContextError as error:
            console.print(f"[red]{literal(_too_long(conversation, error))}[/]\n")
        except CamelidError as error:
            console.print(f"[red]{literal(str(error))}[/]\n")


def _too_long(conversation: Conversation, error: ContextError) -> str:
    """A full context, with what can be done about it in a conversation that goes on."""
    end = f"the context is {error.context}, with room for one of the answer"
    if not conversation.turns:
        return f"this message makes {error.n_tokens} tokens; {end}; shorten it, or start again with a larger --context"
    said = f"the conversation and this message have {error.n_tokens} tokens; {end}"
    return f"{said}; /undo forgets the last turn, /reset all of them; /save FILE keeps them before"


def _one_turn(conversation: Conversation, line: str, console: Console) -> None:
    if not line:
        return
    if line == "/help":
        for name, (what, _) in COMMANDS.items():
            console.print(f"  [cyan]/{name}[/] {what}")
        console.print("  [cyan]/regenerate[/] answer the last question anew\n  [cyan]/exit[/] leave, as Ctrl-D does\n")
    elif line == "/regenerate":
        show_answer(conversation.again(), console)
    elif line.startswith("/"):
        console.print(f"[dim]{literal(command(conversation, line))}[/]\n")
    else:
        show_answer(conversation.ask(line), console)


def show_answer(deltas: Iterator[Delta], console: Console) -> None:
    """Draw an answer as Markdown while it comes: finished blocks stay, only the open one is drawn again."""
    open_block, first, last = "", None, None
    waiting = Spinner("dots", style="dim")
    with Live(waiting, console=console, refresh_per_second=12, transient=True) as live:
        try:
            for delta in deltas:
                first, last = first or delta, delta
                closed, open_block = split_blocks(open_block + printable(delta.text))
                if closed.strip():
                    console.print(_markdown(closed))
                    console.print()
                live.update(Group(_markdown(open_block)) if open_block.strip() else waiting)
        except KeyboardInterrupt:
            getattr(deltas, "close", lambda: None)()
            open_block += " …"
        live.update("")
    console.print(_markdown(open_block))
    if first is not None and last is not None:
        console.print(f"[dim]{_footnote(first, last)}[/]\n")


def _markdown(text: str) -> Markdown:
    """An answer; the address of a link is shown, because a model chooses it and its title."""
    return Markdown(text, hyperlinks=False)


def split_blocks(text: str) -> tuple[str, str]:
    """Markdown up to its last blank line outside a code fence, and the rest, which may still change."""
    at, fenced, cut = 0, False, 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        if line.lstrip().startswith(FENCE):
            fenced = not fenced
        elif not line.strip() and not fenced and line.endswith("\n"):
            cut = at
    return text[:cut], text[cut:]


def _footnote(first: Delta, last: Delta) -> str:
    """Counts, and the speed of writing: the wait for the first token is reading, not writing."""
    token = last.token
    written, seconds = token.index + 1, last.seconds - first.seconds
    speed = f", {(written - 1) / seconds:.0f} tokens/s" if seconds > 0 else ""
    cached = f" ({token.n_cached} from the cache)" if token.n_cached else ""
    end = "" if last.finish_reason in ("stop", None) else f", ended by {last.finish_reason}"
    return f"{last.n_prompt} tokens read{cached}, {written} written{speed}{end}"


class _line_reader:  # noqa: N801 - used as a function
    """Reads one message: several lines by Alt-Enter, earlier ones by the arrow keys, commands completed by Tab."""

    def __init__(self, history: Path) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()
        keys.add("enter")(lambda event: event.current_buffer.validate_and_handle())
        keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
        commands = [f"/{name}" for name in (*COMMANDS, "regenerate", "help", "exit")]
        self._session: PromptSession[str] = PromptSession(
            "› ",
            multiline=True,
            key_bindings=keys,
            history=_history(history),
            completer=WordCompleter(commands, sentence=True),
            complete_while_typing=False,
        )

    def __call__(self) -> str:
        return self._session.prompt()


def _history(path: Path) -> History:
    """What was asked before, kept in a file; where that cannot be written, for this conversation only."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Kept(FileHistory):
        def store_string(self, string: str) -> None:
            with suppress(OSError, UnicodeEncodeError):  # the conversation matters more
                super().store_string(string)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            return Kept(str(path))
    except OSError as error:
        log.warning("%s: cannot be written (%s); the arrow keys know this conversation only", path, error.strerror)
        return InMemoryHistory()


def answer_pipe(conversation: Conversation, text: str) -> None:
    """Answer one piped message in plain text on standard output."""
    for delta in conversation.ask(text):
        write(delta.text)
    write("\n")
