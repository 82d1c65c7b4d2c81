"""Show the likeliest next tokens of a prompt, with probabilities."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from camelid.cli.console import print_json
from camelid.cli.flags import takes
from camelid.cli.options import BackendName, Json, TextArgument, model_and_text, open_llama
from camelid.console import Terminal
from camelid.engine.engine import EngineOptions
from camelid.engine.request import SamplingParams
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.chat.explain import Explanation
    from camelid.chat.results import NextTable

BAR = 20
ABOVE_SAMPLING = (
    *("n", "max_tokens", "min_tokens", "stop", "stop_ids", "ignore_stop"),
    *("logprobs", "seed", "draft_tokens"),
)


@takes("engine", EngineOptions)
@takes("params", SamplingParams, without=ABOVE_SAMPLING)
def run(
    prompt: Annotated[list[str] | None, TextArgument("PROMPT")] = None,
    *,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Walk through the stages that lead to the table.")] = False,
    backend: BackendName = "auto",
    json: Json = False,
    params: SamplingParams,
    engine: EngineOptions,
) -> None:
    """The table is over the whole vocabulary; give a sampling flag to see what sampling with it would leave."""
    model, text = model_and_text(prompt, "prompt")
    llama = open_llama(model, backend, engine)
    sampled = params if params.model_fields_set else None
    table = llama.next(text, top, sampled)
    explained = None
    if explain:
        from camelid.chat.explain import explain as explain_prompt

        explained = explain_prompt(llama, table, params.over(llama.params))
    if json:
        extra = {"explain": asdict(explained)} if explained else {}
        print_json({**asdict(table), **extra})
        return
    console = Terminal()
    if explained:
        _show_stages(console, explained)
    _show_table(console, text, table)
    if explained:
        _show_steps(console, explained)


def _show_table(console: Console, prompt: str, table: NextTable) -> None:
    console.print(f"\n[italic]{literal(prompt)}[/] …\n")
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("rank", "id", "token", "probability", "", "cumulative", "logprob"):
        shown.add_column(
            name, justify="left" if name in ("token", "") else "right", style="dim" if name == "id" else ""
        )
    scale = table.tokens[0].probability
    for row in table.tokens:
        bar = "█" * round(BAR * row.probability / scale) if scale else ""
        shown.add_row(
            str(row.rank),
            str(row.id),
            f"[bold]{literal(visible(row.text))}[/]",
            f"{row.probability:.1%}",
            f"[cyan]{bar}[/]",
            f"{row.cumulative:.1%}",
            f"{row.logprob:.3f}",
        )
    console.print(shown)
    rest = table.sum - table.tokens[-1].cumulative
    console.print(f"\n[dim]all other tokens together {rest:.1%}; the whole column sums to {table.sum:.9f}[/]\n")


def _show_stages(console: Console, explained: Explanation) -> None:
    console.print("\n[bold]1  Text becomes tokens, tokens become vectors[/]\n")
    for position, token in enumerate(explained.tokens):
        first = ", ".join(f"{value:+.3f}" for value in token.embedding)
        console.print(
            f"  {position:>4}  {token.id:>6}  [bold]{literal(f'{visible(token.text):<16}')}[/] [dim]({first}, …)[/]"
        )
    console.print(f"\n  each a row of the embedding matrix, {explained.dim} wide; its position enters in attention\n")
    console.print(f"[bold]2  {len(explained.layers)} layers; what each would say if it were the last (logit lens)[/]\n")
    lens = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("layer", "likeliest", "probability", "looks most at"):
        lens.add_column(name, justify="right" if name in ("layer", "probability") else "left")
    for layer in explained.layers:
        looks = "  ".join(f"{literal(visible(text))} {share:.0%}" for text, share in layer.attention)
        likeliest = f"[bold]{literal(visible(layer.text))}[/]"
        lens.add_row(str(layer.layer), likeliest, f"{layer.probability:.1%}", f"[dim]{looks}[/]")
    console.print(lens)
    console.print("\n[bold]3  The last vector becomes a distribution over the vocabulary[/]")


def _show_steps(console: Console, explained: Explanation) -> None:
    console.print("[bold]Sampling, step by step[/]\n")
    for step in explained.steps:
        console.print(f"  {step.name:<20} leaves {step.left:>7,} tokens   [dim]{literal(step.note)}[/]")
    console.print()


def visible(text: str) -> str:
    """Token text with spaces and line ends made visible."""
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"
