"""How fast an engine reads and writes on this machine, and how near that is to what the machine can do."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from camelid import busy
from camelid.engine.engine import Engine
from camelid.engine.memory import cache_bytes_per_token
from camelid.engine.request import Request, SamplingParams, Token

if TYPE_CHECKING:
    from camelid.engine.backend_cpu import CpuBackend


@dataclass(frozen=True)
class Speed:
    """Medians over the repeats, with the range of each; tokens per second. `busy` is what others did meanwhile."""

    backend: str
    prompt_tokens: int
    generated_tokens: int
    context_tokens: int
    repeats: int
    prefill_tokens_per_second: float
    prefill_range: tuple[float, float]
    decode_tokens_per_second: float
    decode_range: tuple[float, float]
    busy: busy.Busy
    sequences: int = 1  # that were written at once; the decode speed is of all together


def measure(
    engine: Engine, prompt: int = 512, tokens: int = 64, context: int = 0, repeats: int = 5, batch: int = 1
) -> Speed:
    """Prefill speed over `prompt` random ids, and decode speed of `batch` sequences over `tokens` ids after `context`.

    Ids are new in each repeat, so nothing comes from the prefix cache. One repeat before is not counted.
    """
    prefill, decode, before = [], [], busy.read()
    rng = np.random.default_rng()  # not seeded: ids of an earlier call would be found in the prefix cache
    for repeat in range(repeats + 1):
        ids = rng.integers(3, engine.backend.config.vocab_size, (batch + 1, max(prompt, context, 1)))
        first, _ = _seconds(engine, ids[:1, :prompt].tolist(), 1)
        _, writing = _seconds(engine, ids[1:, : max(context, 1)].tolist(), tokens + 1)
        if repeat:
            prefill.append(prompt / first)
            decode.append(batch * tokens / writing)
        else:
            before = busy.read()
    return Speed(
        backend=engine.backend.name,
        prompt_tokens=prompt,
        generated_tokens=tokens,
        context_tokens=context,
        repeats=repeats,
        prefill_tokens_per_second=statistics.median(prefill),
        prefill_range=(min(prefill), max(prefill)),
        decode_tokens_per_second=statistics.median(decode),
        decode_range=(min(decode), max(decode)),
        busy=busy.between(before, busy.read()),
        sequences=batch,
    )


def _seconds(engine: Engine, prompts: list[list[int]], n_tokens: int) -> tuple[float, float]:
    """Seconds until every prompt has its first token, and from there to the last of `n_tokens` of each."""
    params = SamplingParams(temperature=0, max_tokens=n_tokens, ignore_stop=True)
    started = time.perf_counter()
    for ids in prompts:
        engine.add(Request(ids=tuple(ids), params=params))
    waiting, first = len(prompts), started
    while engine.is_busy:
        written = engine.step()
        waiting -= sum(isinstance(outcome, Token) and outcome.index == 0 for outcome in written)
        if not waiting and first == started:
            first = time.perf_counter()
    return first - started, time.perf_counter() - first


@dataclass(frozen=True)
class Limits:
    """What this machine can do at most, and how near a speed comes to it. Operations and bytes are of a second.

    A token reads all weights but an embedding table that is not the output matrix, and the keys and values before it.
    """

    isa: str
    threads: int
    bytes_per_token: int
    read_bandwidth: float
    decode_share_of_bandwidth: float
    prefill_operations: float
    multiply_peaks: dict[str, float]
    prefill_share_of_peaks: dict[str, float]


def limits(backend: CpuBackend, speed: Speed) -> Limits:
    """Measure the limits of the processor that a speed was measured on."""
    from camelid.engine import _cpu

    config, isa, threads = backend.config, backend.isa, backend.threads
    positions = speed.context_tokens + speed.generated_tokens // 2
    cache = positions * cache_bytes_per_token(config, backend.bytes_per_number)
    bandwidth = _cpu.read_bandwidth(isa, threads, 512)
    peaks = {name: _cpu.multiply_peak(isa, what, threads) for what, name in enumerate(("float32", "bfloat16", "int8"))}
    tables = config.vocab_size * config.dim * (1 if config.ties_embeddings else 2)
    operations = 2 * (config.n_parameters - tables) * speed.prefill_tokens_per_second
    steps = speed.decode_tokens_per_second / speed.sequences
    return Limits(
        isa=isa,
        threads=threads,
        bytes_per_token=backend.weight_bytes // speed.sequences + cache,
        read_bandwidth=bandwidth,
        decode_share_of_bandwidth=steps * (backend.weight_bytes + speed.sequences * cache) / bandwidth,
        prefill_operations=operations,
        multiply_peaks={name: peak for name, peak in peaks.items() if peak},
        prefill_share_of_peaks={name: operations / peak for name, peak in peaks.items() if peak},
    )
