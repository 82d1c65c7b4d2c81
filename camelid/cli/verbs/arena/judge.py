"""Have a model vote on the battles of a log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from camelid.cli.console import print_json, stderr
from camelid.cli.options import BackendName, Json, open_llama
from camelid.engine.engine import EngineOptions
from camelid.errors import OptionError
from camelid.streams import write


def run(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG…", help="Files of votes with their texts.")],
    *,
    judge: Annotated[str | None, typer.Option(help="The model that judges; with --url its name there.")] = None,
    url: Annotated[str | None, typer.Option(help="A server with OpenAI's API instead, as http://HOST/v1.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the judge's votes and words.")] = Path("judged"),
    mode: Annotated[
        Literal["pair", "single"], typer.Option(help="Both answers, in both orders; or each alone.")
    ] = "pair",
    references: Annotated[
        Path | None, typer.Option(help="Folder with question.jsonl and reference_answer*.jsonl, for mathematics.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Other prompts, as FastChat's judge_prompts.jsonl.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many battles.")] = None,
    backend: BackendName = "auto",
    json: Json = False,
) -> None:
    """Prompts are those of MT-bench's judge. The votes lie in a log of their own, OUT/votes.jsonl, and are in no board
    that does not name it. The same command goes on after a kill."""
    from itertools import islice

    from camelid.arena.judging.judge import judge as judge_all
    from camelid.arena.judging.prompts import load_prompts, load_references
    from camelid.arena.logs import read_texts
    from camelid.evals.ask import Asker, LlamaAsker
    from camelid.evals.endpoint import EndpointAsker

    if judge is None and url is None:
        raise OptionError("--judge: name the model that judges, or a server with --url", param="judge")
    known = load_references(references) if references is not None else {}
    own = load_prompts(prompts)
    asker: Asker
    asker = EndpointAsker(url, judge) if url is not None else LlamaAsker(open_llama(judge, backend, EngineOptions()))
    found = judge_all(islice(read_texts(logs), limit), asker, out, mode, own, known)
    if json:
        print_json(found.as_json())
        return
    said = ", ".join(f"{name} {n:,}" for name, n in sorted(found.winners.items())) or "no votes"
    write(f"{found.folder / 'votes.jsonl'}: {said}\n")
    if found.decided:
        write(f"{found.inconsistent:,} pairs contradict themselves when swapped; the answer shown first was preferred ")
        write(f"{found.first:,} of {found.decided:,} times\n")
    if found.unparsable:
        stderr.print(f"{found.unparsable:,} battles: the judge's words name no winner; they are no votes")
    for reason, n in found.left_out.items():
        stderr.print(f"{n:,} battles not judged: {reason}")
