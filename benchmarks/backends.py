"""Speed of the backends on one model, measured in turn in one process: A B C A B C …

    python benchmarks/backends.py [MODEL] [--repeats N]

Prints tokens/s (median, lowest and highest), and for decoding the share of the machine's read bandwidth that the
weights' bytes come to; appends one JSON line to benchmarks/results/backends.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend, has_torch
from camelid.engine.measure import measure
from camelid.hub.catalog import DEFAULT_MODEL
from camelid.hub.store import resolve
from camelid.weights.open import open_weights

RESULTS = Path(__file__).parent / "results" / "backends.jsonl"
BYTES = {"numpy float32": 4, "torch float32": 4, "torch bfloat16": 2}


def read_bandwidth(n_threads: int, size: int = 1 << 28) -> float:
    """Bytes a second that the cores read together: the best of several passes over arrays larger than any cache."""
    arrays = [np.ones(size // 8) for _ in range(n_threads)]
    rates = []
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(7):
            started = time.perf_counter()
            list(pool.map(np.sum, arrays))
            rates.append(n_threads * size / (time.perf_counter() - started))
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    weights = open_weights(resolve(chosen.model))
    names = [name for name in BYTES if name.startswith("numpy") or has_torch()]
    engines = {}
    for name in names:
        backend, dtype = name.split()
        options = EngineOptions(context=2048, dtype=dtype)
        engines[name] = Engine(choose_backend(weights, backend, options), options)
    bandwidth = read_bandwidth(len(os.sched_getaffinity(0)))
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for _ in range(chosen.repeats):
        for name, engine in engines.items():
            short, long = measure(engine, 512, 64, 0, 1), measure(engine, 1, 64, 1024, 1)
            speeds = (short.prefill_tokens_per_second, short.decode_tokens_per_second, long.decode_tokens_per_second)
            rows[name].append(speeds)
    report(weights.path.name, weights.config.n_parameters, rows, bandwidth)


def report(model: str, n_parameters: int, rows: dict[str, list[tuple[float, float, float]]], bandwidth: float) -> None:
    """Print the table and keep a line of it."""
    print(f"{model}, read bandwidth {bandwidth / 1e9:.1f} GB/s, median [lowest to highest] tokens/s\n")
    print(f"{'backend':<16} {'prefill 512':>22} {'decode at 0':>22} {'of bandwidth':>12} {'decode at 1024':>22}")
    medians = {}
    for name, speeds in rows.items():
        columns = list(zip(*speeds, strict=True))
        middle = [statistics.median(column) for column in columns]
        cells = [f"{statistics.median(c):.1f} [{min(c):.0f} to {max(c):.0f}]" for c in columns]
        share = middle[1] * n_parameters * BYTES[name] / bandwidth
        print(f"{name:<16} {cells[0]:>22} {cells[1]:>22} {share:>12.0%} {cells[2]:>22}")
        medians[name] = {"prefill": middle[0], "decode": middle[1], "decode_at_1024": middle[2], "share": share}
    RESULTS.parent.mkdir(exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = {"date": date, "model": model, "machine": platform.machine(), "bandwidth": bandwidth, "speeds": medians}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
