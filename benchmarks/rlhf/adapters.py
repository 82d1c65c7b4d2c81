"""What adapters cost: tokens/s read and written by a base alone, with one adapter, and with several in a batch.

    python benchmarks/rlhf/adapters.py MODEL [--rank 16] [--running 16] [--threads 2]

Ways in turns, medians; also seconds of processor time, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import numpy as np

from camelid.chat.adapters.engine import AdaptedEngine
from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend
from camelid.engine.request import Request, SamplingParams
from camelid.hub.store import resolve
from camelid.model.config import ModelConfig, layer_shapes
from camelid.weights.lora import Adapter, Pair
from camelid.weights.open import open_weights

PROMPT, WRITTEN = 256, 64


def random_adapter(config: ModelConfig, rank: int, seed: int) -> Adapter:
    """One on all matrices, too small to change what is written much."""
    random, pairs = np.random.default_rng(seed), {}
    for layer in range(config.n_layers):
        for name, shape in layer_shapes(config).items():
            if len(shape) == 2:
                down = random.standard_normal((rank, shape[1]), dtype=np.float32) * np.float32(0.01)
                up = random.standard_normal((shape[0], rank), dtype=np.float32) * np.float32(0.01)
                pairs[f"layers.{layer}.{name}"] = Pair(down, up, 1.0)
    return Adapter(resolve("."), "", pairs, {}, False, None, ())


def measured(engines: Sequence[Engine], running: int, vocabulary: int, seed: int) -> dict[str, float]:
    """One way: `running` requests, shared out among the engines, read and written."""
    random, owner = np.random.default_rng(seed), engines[0]
    for number in range(running):
        ids = tuple(random.integers(0, vocabulary, PROMPT).tolist())
        params = SamplingParams(temperature=0.0, max_tokens=WRITTEN, ignore_stop=True, draft_tokens=0)
        engines[number % len(engines)].add(Request(ids=ids, params=params))
    started, cpu, first, n = time.perf_counter(), time.process_time(), None, 0
    while owner.is_busy:
        n += len(owner.step())
        if first is None and n >= running:
            first = time.perf_counter()
    ended = time.perf_counter()
    first = first or ended
    reading = running * PROMPT / (first - started)
    return {"read": reading, "written": (n - running) / (ended - first), "cpu_seconds": time.process_time() - cpu}


def main() -> None:
    """Measure, and print a line of JSON for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--running", type=int, default=16)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    options = EngineOptions(threads=given.threads, max_running=given.running, context=2048, prefix_cache=False)
    weights = open_weights(resolve(given.model))
    engine = Engine(choose_backend(weights, "cpu", options), options)
    adapters = [random_adapter(weights.config, given.rank, seed) for seed in range(given.adapters)]
    views = [AdaptedEngine(engine, engine.backend.add_adapter(adapter)) for adapter in adapters]
    ways = {"base": [engine], "one adapter": views[:1], f"{len(views)} adapters": views}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for round_number in range(given.rounds):
        for name, engines in ways.items():
            found[name].append(measured(engines, given.running, weights.config.vocab_size, round_number))
    for name, rows in found.items():
        medians = {key: round(statistics.median(row[key] for row in rows), 2) for key in rows[0]}
        print(json.dumps({"way": name, "rank": given.rank, "running": given.running, **medians}))


if __name__ == "__main__":
    main()
