"""How fast an engine reads and writes on this machine."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from camelid.engine.engine import Engine
from camelid.engine.request import Request, SamplingParams


@dataclass(frozen=True)
class Speed:
    """Medians over the repeats, with the range of each; tokens per second."""

    backend: str
    prompt_tokens: int
    generated_tokens: int
    context_tokens: int
    repeats: int
    prefill_tokens_per_second: float
    prefill_range: tuple[float, float]
    decode_tokens_per_second: float
    decode_range: tuple[float, float]


def measure(engine: Engine, prompt: int = 512, tokens: int = 64, context: int = 0, repeats: int = 5) -> Speed:
    """Prefill speed over `prompt` random ids, and decode speed over `tokens` ids after `context` ids.

    Ids are new in each repeat, so nothing comes from the prefix cache. One repeat before is not counted.
    """
    prefill, decode = [], []
    rng = np.random.default_rng()  # not seeded: ids of an earlier call would be found in the prefix cache
    for repeat in range(repeats + 1):
        first, _ = _seconds(engine, rng.integers(3, engine.backend.config.vocab_size, prompt).tolist(), 1)
        short = rng.integers(3, engine.backend.config.vocab_size, max(context, 1)).tolist()
        _, writing = _seconds(engine, short, tokens + 1)
        if repeat:
            prefill.append(prompt / first)
            decode.append(tokens / writing)
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
    )


def _seconds(engine: Engine, ids: list[int], n_tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and from it to the last of `n_tokens`."""
    params = SamplingParams(temperature=0, max_tokens=n_tokens, ignore_stop=True)
    started = time.perf_counter()
    times = [time.perf_counter() for _ in engine.stream(Request(ids=tuple(ids), params=params))]
    return times[0] - started, times[-1] - times[0]
