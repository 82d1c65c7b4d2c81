"""Continue a prompt."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camelid.cli.console import print_json, stderr
from camelid.cli.flags import takes
from camelid.cli.options import (
    AdapterName,
    BackendName,
    DraftName,
    Json,
    TextArgument,
    check_draft,
    model_and_text,
    open_llama,
)
from camelid.engine.engine import EngineOptions
from camelid.engine.request import SamplingParams
from camelid.errors import OptionError
from camelid.streams import check_text, read_text, write

if TYPE_CHECKING:
    from camelid.chat.constrain import Form
    from camelid.chat.results import Generation


@takes("engine", EngineOptions)
@takes("params", SamplingParams)
def run(
    prompt: Annotated[list[str] | None, TextArgument("PROMPT")] = None,
    *,
    json_schema: Annotated[Path | None, typer.Option(help="File with a JSON schema that the output must meet.")] = None,
    regex: Annotated[str | None, typer.Option(help="Regular expression that the output must match.")] = None,
    grammar: Annotated[Path | None, typer.Option(help="File with a Lark grammar that the output must follow.")] = None,
    beams: Annotated[int, typer.Option(min=1, help="Beam search of this width instead of sampling.")] = 1,
    length_penalty: Annotated[float, typer.Option(help="Beam search: above 1 favours longer answers.")] = 1.0,
    backend: BackendName = "auto",
    draft: DraftName = None,
    adapter: AdapterName = None,
    json: Json = False,
    params: SamplingParams,
    engine: EngineOptions,
) -> None:
    """The continuation goes to standard output as it comes; with no prompt, a pipe is read."""
    model, text = model_and_text(prompt, "prompt")
    check_draft(draft, params)
    form = read_form(json_schema, regex, grammar)
    llama = open_llama(model, backend, engine, draft=draft, adapter=adapter)
    asks_drafts = "draft_tokens" in params.model_fields_set and params.draft_tokens != 0
    params = params.over(llama.params)
    if beams > 1:
        if form is not None:
            raise OptionError("--beams: does not go together with a constrained form; leave one of them out")
        if asks_drafts:
            raise OptionError("--beams: does not go together with --draft-tokens; leave one of them out")
        show(llama.beams(text, beams, length_penalty=length_penalty, max_tokens=params.max_tokens), json)
        return
    if json or params.n > 1:
        result = llama.generate(text, params, form=form)
        show(result, json, {"verified": llama.engine.n_drafted, "accepted": llama.engine.n_accepted})
        return
    for delta in llama.stream(text, params, form=form):
        write(delta.text)
    write("\n")


def show(result: Generation, json: bool, drafts: dict[str, int] | None = None) -> None:
    """Print a finished answer, as JSON (with the draft tokens of all samples) or as text with its siblings."""
    if json:
        print_json(as_json(result) | ({"drafts": drafts} if drafts else {}))
        return
    answers = (result, *result.others)
    for index, answer in enumerate(answers):
        if len(answers) > 1:
            stderr.print(f"[dim]— {index + 1} of {len(answers)}[/]")
        write(answer.text + "\n")


def as_json(result: Generation) -> dict[str, Any]:
    """The contract for programs: text, ids, finish_reason, usage, and what was asked for beside."""
    shown: dict[str, Any] = {
        "text": result.text,
        "ids": list(result.ids),
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
        "seconds_to_first": round(result.seconds_to_first, 4),
        "tokens_per_second": round(result.tokens_per_second, 2),
    }
    if any(token.top for token in result.tokens):
        shown["logprobs"] = [asdict(token) for token in result.tokens]
    if result.others:
        shown["others"] = [as_json(other) for other in result.others]
    return shown


def read_form(json_schema: Path | None, regex: str | None, grammar: Path | None) -> Form | None:
    """The form that the flags ask for, if any."""
    if json_schema is None and regex is None and grammar is None:
        return None
    from camelid.chat.constrain import Form

    check_text([regex], "--regex")
    schema, rules = (None if path is None else read_text(path) for path in (json_schema, grammar))
    return Form(json_schema=schema, regex=regex, grammar=rules)
