"""What arrival times tell: a classifier says who answers on side A, from all that a browser sees before the vote.

    python benchmarks/arena/leak.py [--battles 200] [--quick 400] [--slow 120] [--at-once 20]

Two upstreams write texts of alike lengths at --quick and --slow characters a second. Logistic regression on times and
sizes of both sides, their products and differences, trained on other battles (ten folds); chance is a half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
from server import ArenaServer, write_config
from upstream import upstream

FOLDS = 10


async def battle(client: httpx.AsyncClient) -> tuple[list[float], bool, set[str]]:
    """Features, whether the quick model is A, and which secrets were seen."""
    begun = time.perf_counter()
    id = (await client.post("/arena/api/battles", json={})).json()["id"]
    times: dict[str, list[float]] = {"a": [], "b": []}
    sizes: dict[str, list[int]] = {"a": [], "b": []}
    ends, raw, ticket = {"a": 0.0, "b": 0.0}, "", ""
    async with client.stream("POST", f"/arena/api/battles/{id}/messages", json={"text": "Where?"}) as response:
        raw += str(response.headers)
        async for line in response.aiter_lines():
            raw += line
            event: dict[str, Any] = json.loads(line[6:]) if line.startswith("data: ") else {}
            now, side = time.perf_counter() - begun, event.get("side", "")
            if event.get("type") == "delta" and event["blocks"]:
                times[side].append(now)
                sizes[side].append(len(line))
            elif event.get("type") == "end":
                ends[side] = now
            ticket = event.get("ticket", ticket)
    raw += (await client.get(f"/arena/api/battles/{id}")).text
    seen = {word for word in ("speedster", "snail", "Acme", "Slowcorp") if word in raw}
    answer = (await client.post("/arena/api/votes", json={"ticket": ticket, "vote": "TIE"})).json()
    row = [side_features(times[side], sizes[side], ends[side]) for side in "ab"]
    return [*row[0], *row[1]], answer["models"]["a"]["name"] == "speedster", seen


def side_features(times: list[float], sizes: list[int], end: float) -> list[float]:
    """First, last and end, number of pieces, mean and deviation of gaps, longest gap, bytes."""
    gaps = np.diff(times) if len(times) > 1 else np.zeros(1)
    return [times[0], times[-1], end, len(times), float(gaps.mean()), float(gaps.std()), float(gaps.max()), sum(sizes)]


def accuracy(rows: np.ndarray, labels: np.ndarray) -> float:
    """Of ridge logistic regression in ten folds."""
    n_side = rows.shape[1] // 2
    a, b = rows[:, :n_side], rows[:, n_side:]
    x = np.hstack([rows, a - b, (a - b) * (a + b)])
    order = np.random.default_rng(0).permutation(len(x))
    right = 0
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        train = np.setdiff1d(order, test)
        mean, width = x[train].mean(0), x[train].std(0) + 1e-9
        inputs, w, bias = (x - mean) / width, np.zeros(x.shape[1]), 0.0
        for _ in range(500):
            p = 1 / (1 + np.exp(-(inputs[train] @ w + bias)))
            error = p - labels[train]
            w -= 0.1 * (inputs[train].T @ error / len(train) + 0.05 * w)
            bias -= 0.1 * error.mean()
        right += int((((inputs[test] @ w + bias) > 0) == (labels[test] > 0.5)).sum())
    return right / len(x)


async def run(arguments: argparse.Namespace, folder: Path) -> int:
    """The whole benchmark."""
    rows = (("speedster", "Acme", arguments.quick, 0.05), ("snail", "Slowcorp", arguments.slow, 0.6))
    models = [
        f"name = '{name}'\norganisation = '{maker}'\nurl = '{upstream(first, speed, at)}'\n"
        for at, (name, maker, speed, first) in enumerate(rows)
    ]
    config = write_config(folder / "arena.toml", models)
    server = ArenaServer(config, f"sqlite:///{folder}/arena.db", folder / "server.log")
    gate = asyncio.Semaphore(arguments.at_once)

    async def one() -> tuple[list[float], bool, set[str]]:
        async with gate, httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            return await battle(client)

    found = await asyncio.gather(*(one() for _ in range(arguments.battles)))
    server.stop()
    features = np.array([row for row, _, _ in found])
    labels = np.array([is_a for _, is_a, _ in found], float)
    n, reached = len(labels), accuracy(features, labels)
    chance = max(labels.mean(), 1 - labels.mean())
    report = {
        "battles": n,
        "accuracy": round(reached, 3),
        "always_the_commoner": round(float(chance), 3),
        "chance_95": [round(0.5 - 1.96 * 0.5 / n**0.5, 3), round(0.5 + 1.96 * 0.5 / n**0.5, 3)],
        "secrets_seen": sorted(set().union(*(seen for _, _, seen in found))),
    }
    print(json.dumps(report, indent=2))
    return int(bool(report["secrets_seen"]))


def main() -> int:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--battles", type=int, default=200)
    parser.add_argument("--quick", type=float, default=400.0)
    parser.add_argument("--slow", type=float, default=120.0)
    parser.add_argument("--at-once", type=int, default=20)
    with tempfile.TemporaryDirectory(prefix="camelid-leak-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(run(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
