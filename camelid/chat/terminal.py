"""The conversation loop of `camelid chat`: a prompt with history, answers as Markdown while they are written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markdown import Markdown
from rich.markup import escape
from rich.spinner import Spinner

from camelid.chat.conversation import COMMANDS, Conversation, command
from camelid.chat.results import Delta
from camelid.errors import CamelidError

FENCE = "```"


def talk(conversation: Conversation, history: Path, console: Console) -> None:
    """Ask, answer, repeat, until Ctrl-D or /exit. Ctrl-C stops an answer, not the conversation."""
    ask = _line_reader(history)
    console.print("[dim]Enter sends, Alt-Enter starts a new line, Ctrl-C stops an answer, /help shows commands.[/]\n")
    while True:
        try:
            line = ask().strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if line in ("/exit", "/quit", "/bye"):
            return
        try:
            _one_turn(conversation, line, console)
        except CamelidError as error:
            console.print(f"[red]{escape(str(error))}[/]\n")


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
        console.print(f"[dim]{escape(command(conversation, line))}[/]\n")
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
                closed, open_block = split_blocks(open_block + delta.text)
                if closed.strip():
                    console.print(Markdown(closed))
                    console.print()
                live.update(Group(Markdown(open_block)) if open_block.strip() else waiting)
        except KeyboardInterrupt:
            getattr(deltas, "close", lambda: None)()
            open_block += " …"
        live.update("")
    console.print(Markdown(open_block))
    if first is not None and last is not None:
        console.print(f"[dim]{_footnote(first, last)}[/]\n")


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
        from prompt_toolkit.history import FileHistory
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()
        keys.add("enter")(lambda event: event.current_buffer.validate_and_handle())
        keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
        history.parent.mkdir(parents=True, exist_ok=True)
        commands = [f"/{name}" for name in (*COMMANDS, "regenerate", "help", "exit")]
        self._session: PromptSession[str] = PromptSession(
            "› ",
            multiline=True,
            key_bindings=keys,
            history=FileHistory(str(history)),
            completer=WordCompleter(commands, sentence=True),
            complete_while_typing=False,
        )

    def __call__(self) -> str:
        return self._session.prompt()


def answer_pipe(conversation: Conversation, text: str) -> None:
    """Answer one piped message in plain text on standard output."""
    for delta in conversation.ask(text):
        sys.stdout.write(delta.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
