"""Measure how fast a model reads and writes here."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer

from camelid.busy import LEAST, Busy
from camelid.cli.console import print_json, stderr
from camelid.cli.flags import takes
from camelid.cli.options import BackendName, Json, ModelName, open_llama
from camelid.console import Terminal
from camelid.engine.engine import EngineOptions
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.engine.backend_cpu import CpuBackend


@takes("engine", EngineOptions)
def run(
    model: ModelName = None,
    *,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of the prompt that is read.")] = 512,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens that are written.")] = 64,
    ctx: Annotated[int, typer.Option(min=0, help="Tokens that stand before the written ones.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Sequences that are written at once.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Counted runs; the median is shown.")] = 5,
    backend: BackendName = "auto",
    json: Json = False,
    engine: EngineOptions,
) -> None:
    """Medians over several runs, after one that is not counted. What else works meanwhile is told."""
    from camelid.engine.measure import limits, measure

    llama = open_llama(model, backend, engine)
    with stderr.status(f"measuring on {llama.engine.backend.name}"):
        speed = measure(llama.engine, prompt, tokens, ctx, repeats, batch)
        most = limits(cast("CpuBackend", llama.engine.backend), speed) if speed.backend == "cpu" else None
    size = llama.weights.nbytes
    if json:
        machine = asdict(most) if most else {}
        print_json({**asdict(speed), **machine, "model": str(llama.weights.path), "file_bytes": size})
        return
    console = Terminal()
    console.print(f"\n[bold]{literal(llama.weights.path.name)}[/] on {speed.backend}, median of {repeats} runs\n")
    rows = (
        (f"prefill of {prompt} tokens", speed.prefill_tokens_per_second, speed.prefill_range),
        (f"decode of {batch} × {tokens} tokens at {ctx}", speed.decode_tokens_per_second, speed.decode_range),
    )
    for name, value, (low, high) in rows:
        console.print(f"  {name:<28} [bold]{value:8.1f}[/] tokens/s   [dim]{low:.1f} to {high:.1f}[/]")
    for line in _busy(speed.busy):
        console.print(f"  [yellow]{line}[/]")
    if most:
        console.print(f"\n  [dim]{most.threads} threads, {most.isa}[/]")
        read = f"{most.bytes_per_token / 1e6:.1f} MB a token, of {most.read_bandwidth / 1e9:.1f} GB/s that can be read"
        console.print(f"  decode reaches  [bold]{most.decode_share_of_bandwidth:4.0%}[/]  [dim]{read}[/]")
        for kind, share in most.prefill_share_of_peaks.items():
            peak = f"{most.prefill_operations / 1e9:.0f} of {most.multiply_peaks[kind] / 1e9:.0f} G a second in {kind}"
            console.print(f"  prefill reaches [bold]{share:4.0%}[/]  [dim]{peak}[/]")
    console.print()


def _busy(busy: Busy) -> list[str]:
    """Who else wanted the processors meanwhile, and what that cost."""
    lines = [f"not quiet: {sentence}" for sentence in busy.describe()]
    if busy.lost >= LEAST:
        lines.append(
            f"its threads waited for {busy.lost:.0%} of the processor time that they wanted: "
            f"about {1 / (1 - busy.lost):.1f} times as fast without that"
        )
    return lines
