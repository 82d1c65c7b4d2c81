"""Measure how fast a model reads and writes here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from camelid.cli._open import Backend, Json, Model, open_llama, print_json, stderr
from camelid.cli._run import takes
from camelid.engine.engine import EngineOptions


@takes("engine", EngineOptions)
def run(
    model: Model = None,
    *,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt that is read.")] = 512,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens that are written.")] = 64,
    ctx: Annotated[int, typer.Option(min=0, help="Tokens that stand before the written ones.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Counted runs; the median is shown.")] = 5,
    backend: Backend = "auto",
    json: Json = False,
    engine: EngineOptions,
) -> None:
    """Medians over several runs, after one that is not counted. Let nothing else work meanwhile."""
    from camelid.engine.measure import measure

    llama = open_llama(model, backend, engine)
    with stderr.status(f"measuring on {llama.engine.backend.name}"):
        speed = measure(llama.engine, prompt, tokens, ctx, repeats)
    size = llama.weights.nbytes
    if json:
        print_json({**asdict(speed), "model": str(llama.weights.path), "file_bytes": size})
        return
    console = Console(highlight=False)
    console.print(f"\n[bold]{llama.weights.path.name}[/] on {speed.backend}, median of {repeats} runs\n")
    rows = (
        (f"prefill of {prompt} tokens", speed.prefill_tokens_per_second, speed.prefill_range),
        (f"decode of {tokens} tokens at {ctx}", speed.decode_tokens_per_second, speed.decode_range),
    )
    for name, value, (low, high) in rows:
        console.print(f"  {name:<28} [bold]{value:8.1f}[/] tokens/s   [dim]{low:.1f} to {high:.1f}[/]")
    console.print()
