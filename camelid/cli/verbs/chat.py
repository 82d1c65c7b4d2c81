"""Talk with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camelid.cli.flags import takes
from camelid.cli.options import AdapterName, BackendName, ChatFormatName, DraftName, ModelName, check_draft, open_llama
from camelid.console import Terminal
from camelid.engine.engine import EngineOptions
from camelid.engine.request import SamplingParams
from camelid.errors import OptionError
from camelid.streams import check_text, literal, read_stdin, stdin_is_terminal


@takes("engine", EngineOptions)
@takes("params", SamplingParams, without=("n", "logprobs"))
def run(
    model: ModelName = None,
    *,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with a conversation that /save wrote.")] = None,
    chat_format: ChatFormatName = None,
    backend: BackendName = "auto",
    draft: DraftName = None,
    adapter: AdapterName = None,
    params: SamplingParams,
    engine: EngineOptions,
) -> None:
    """In a terminal: several lines, history, /commands. From a pipe: all of it is one message, the answer plain."""
    from camelid.chat.conversation import Conversation
    from camelid.chat.terminal import answer_pipe, talk
    from camelid.hub.store import home

    check_text([system], "--system")
    text = None if stdin_is_terminal() else read_stdin().strip()
    if text == "":
        raise OptionError("standard input: is empty; pipe a message in, or start this in a terminal")
    check_draft(draft, params)
    llama = open_llama(model, backend, engine, chat_format, draft, adapter)
    llama.chat_format  # noqa: B018 - a model that cannot chat is refused before anything is asked
    conversation = Conversation(llama, params.over(llama.params), system)
    if resume is not None:
        conversation.read(resume)
    if text is not None:
        answer_pipe(conversation, text)
        return
    console = Terminal()
    where = f"on {llama.engine.backend.name}, {llama.context} tokens of context"
    console.print(f"\n[bold]{literal(llama.weights.path.name)}[/] [dim]{where}[/]")
    talk(conversation, home() / "chat_history", console)
