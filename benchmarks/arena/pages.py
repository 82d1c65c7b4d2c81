"""The leaderboard's pages over a million votes in a database, and how soon a new vote is on the page.

    python benchmarks/arena/pages.py [--votes 1000000] [--database sqlite|postgresql] [--url URL] [--rounds 50]

Makes the votes (a battle, a turn and a vote each; texts for the last thousand), serves the board, and prints for each
page the median and the 95th percentile in milliseconds, over HTTP on this machine, while a vote comes before every
request. `fresh`: from the commit of a vote to the end of the first page that counts it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from sqlalchemy import insert

from camelid.arena.board.alone import board_app
from camelid.arena.board.live import LiveSource
from camelid.arena.board.routes import board_routers
from camelid.arena.live.tables import MIGRATIONS, VERSIONS, Answer, Battle, Turn, Vote
from camelid.serve.dependencies import provide
from camelid.serve.options import ServeOptions
from camelid.serve.server import Server, listen
from camelid.serve.storage.database import Database

MODELS = [f"model-{number}-{size}b-chat" for number, size in enumerate([1, 3, 7, 13, 34, 70] * 17)][:100]
KEY = "operators"
AT_ONCE = 20_000
WITH_TEXTS = 1000
PAGES = {
    "leaderboard": "/leaderboard",
    "filtered": "/leaderboard?open=&size=3+to+10+B&sort=-votes",
    "category": "/leaderboard?category=multi-turn",
    "share of wins": "/leaderboard/plots/wins",
    "intervals": "/leaderboard/plots/intervals",
    "over time": "/leaderboard/plots/time",
    "votes": "/leaderboard/votes",
    "votes of a pair": f"/leaderboard/votes?model_a={MODELS[0]}&model_b={MODELS[1]}",
    "a battle": "/leaderboard/battles/{last}",
    "CSV": "/leaderboard.csv",
    "operators": "/arena/admin",
}


@contextmanager
def postgresql() -> Iterator[str]:
    """A cluster of its own; root may not run one."""
    bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    user = "nobody" if os.geteuid() == 0 else None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="camelid-pg-") as folder:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        made = [str(bin / "initdb"), "-D", f"{folder}/data", "-U", "camelid", "--auth=trust", "-E", "UTF8"]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        flags = ["-D", f"{folder}/data", "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
        with subprocess.Popen([str(bin / "postgres"), *flags], user=user, cwd=folder, stderr=subprocess.DEVNULL) as it:
            ready = [str(bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            while subprocess.run(ready, check=False).returncode:
                time.sleep(0.1)
            try:
                yield f"postgresql://camelid@127.0.0.1:{port}/postgres"
            finally:
                it.send_signal(signal.SIGINT)


class Voters:
    """Puts votes into a database, by strengths that fall from the first model to the last."""

    def __init__(self, database: Database, now: float) -> None:
        self.database, self.now, self.n = database, now, 0
        self.random = np.random.default_rng(0)

    def vote(self, n: int, seconds: float = 2.0, texts: bool = False) -> None:
        """So many votes, `seconds` apart, in one transaction."""
        random, m = self.random, len(MODELS)
        a = random.integers(0, m, n)
        b = (a + random.integers(1, m, n)) % m
        better = random.random(n) < 1 / (1 + np.exp((a - b) / 30))
        winner = np.where(random.random(n) < 0.25, random.integers(2, 4, n), np.where(better, 0, 1))
        people, turns = random.integers(0, 20_000, n), random.integers(1, 4, n)
        rows: dict[Any, list[dict[str, Any]]] = {Battle: [], Turn: [], Answer: [], Vote: []}
        for at in range(n):
            number = self.n + at + 1
            battle, person, made = f"{number:032x}", f"{people[at]:064x}", self.now + seconds * (number - self.n)
            names = {"model_a": MODELS[a[at]], "model_b": MODELS[b[at]]}
            turn, common = int(turns[at]), {"battle": battle, "made": made}
            rows[Battle].append(
                {
                    "id": battle,
                    "mode": "battle",
                    "person": person,
                    "turn": turn,
                    "attempt": 1,
                    "shared": False,
                    "made": made,
                }
                | names
            )
            told = {"number": turn, "attempt": 1, "state": "complete", "held": 0.0}
            rows[Turn].append({**common, **told, "question": "Why?" if texts else None})
            voted = {"number": number, "turn": turn, "attempt": 1, "winner": int(winner[at]), "person": person}
            voted |= {"anony": True, "names_maker": False, "state": "counts", "prompt": f"{number % 50_000:064x}"}
            rows[Vote].append({**common, **names, **voted})
            if texts:
                for side, name in (("a", MODELS[a[at]]), ("b", MODELS[b[at]])):
                    answer = {"battle": battle, "number": turn, "attempt": 1, "side": side, "model": name, "seed": 1}
                    answer |= {"text": "Because. " * 100, "sampling": {}, "made_with": {}, "names_maker": False}
                    rows[Answer].append(answer)
        with self.database.engine.begin() as connection:
            for table, of_table in rows.items():
                if of_table:
                    connection.execute(insert(table), of_table)
        self.n += n
        self.now += seconds * n


@contextmanager
def served(database: Database) -> Iterator[str]:
    """The board over it."""
    options, up = ServeOptions(port=0, shutdown_seconds=2), threading.Event()
    app = board_app(board_routers(LiveSource(), admin_key=KEY), options)
    provide(app, database)
    server = Server(app, options, up.set)
    listener, url = listen(options)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    up.wait()
    yield url
    server.should_exit = True
    thread.join(30)


def measure(url: str, voters: Voters, rounds: int) -> None:
    """Prints the table."""
    with httpx2.Client(base_url=url, timeout=300, headers={"Authorization": f"Bearer {KEY}"}) as client:
        start = time.perf_counter()
        client.get("/leaderboard").raise_for_status()
        print(f"first page, which reads all votes: {time.perf_counter() - start:.2f} s")
        print(f"{'page':18s} {'bytes':>8s} {'p50 ms':>8s} {'p95 ms':>8s}")
        for name, address in PAGES.items():
            address = address.format(last=voters.n)
            n = rounds if name != "over time" else min(rounds, 10)
            client.get(address).raise_for_status()
            taken = []
            for _ in range(n):
                voters.vote(1, texts=True)
                start = time.perf_counter()
                size = len(client.get(address).content)
                taken.append(1000 * (time.perf_counter() - start))
            print(f"{name:18s} {size:8,d} {np.quantile(taken, 0.5):8.1f} {np.quantile(taken, 0.95):8.1f}", flush=True)
        fresh = []
        for _ in range(rounds):
            voters.vote(1, texts=True)
            start = time.perf_counter()
            while True:
                told = re.search(r"#votes: <strong>([\d,]+)", client.get("/leaderboard").text)
                if told is not None and int(told[1].replace(",", "")) == voters.n:
                    break
            fresh.append(1000 * (time.perf_counter() - start))
        print(f"{'fresh':18s} {'':8s} {np.quantile(fresh, 0.5):8.1f} {np.quantile(fresh, 0.95):8.1f}")


def run(url: str, n: int, rounds: int) -> None:
    """Fill a database and measure."""
    database = Database(url)
    database.open()
    database.migrate(MIGRATIONS, VERSIONS)
    voters = Voters(database, time.time() - 2.0 * n)
    start = time.perf_counter()
    while voters.n < n:
        voters.vote(min(AT_ONCE, n - voters.n), texts=n - voters.n <= WITH_TEXTS)
    print(f"\n{database.name.partition(':')[0] if '://' in database.name else 'SQLite'}: {n:,} votes", end="")
    print(f" (written in {time.perf_counter() - start:.0f} s)", flush=True)
    with served(database) as address:
        measure(address, voters, rounds)
    print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    database.dispose()


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--url", help="an empty database that is there already")
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args()
    if given.url:
        run(given.url, given.votes, given.rounds)
        return
    if given.database != "postgresql":
        with tempfile.TemporaryDirectory() as folder:
            run(f"sqlite:///{folder}/arena.db", given.votes, given.rounds)
    if given.database != "sqlite":
        with postgresql() as url:
            run(url, given.votes, given.rounds)


if __name__ == "__main__":
    main()
