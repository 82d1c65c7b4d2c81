"""Many people at once: their own books of votes against the database, and how long pages and votes take.

    python benchmarks/arena/load.py --model MODEL.gguf [--people 200] [--rounds 3] [--sqlite]
                                    [--kill-server 10] [--kill-postgres 10] [--every 8]

Exit status 1 if a vote was lost or doubled. A vote that gets no answer is sent again with its ticket.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2 as httpx
from server import ArenaServer, Postgres, write_config
from sqlalchemy import create_engine, text

VOTES = ("A", "B", "TIE", "BOTH_BAD")
GIVE_UP_SECONDS = 300  # on a vote


class Books:
    """What the people have seen."""

    def __init__(self) -> None:
        self.votes: dict[str, str] = {}
        self.unknown: dict[str, str] = {}  # sent, and never answered
        self.page: list[float] = []
        self.vote: list[float] = []
        self.events: Counter[str] = Counter()


async def person(url: str, number: int, rounds: int, books: Books) -> None:
    """One person's battles, each until it has its vote."""
    rng = random.Random(number)
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        done = 0
        while done < rounds:
            try:
                begun = time.perf_counter()
                (await client.get("/battle")).raise_for_status()
                books.page.append(time.perf_counter() - begun)
                battle = (await client.post("/arena/api/battles", json={})).raise_for_status().json()["id"]
                ticket = await ask(client, battle, f"Question {number}.{done}: where do llamas live?", books)
            except (httpx.HTTPError, ValueError) as error:
                books.events[type(error).__name__] += 1
                await asyncio.sleep(rng.uniform(0.5, 1.5))
                continue
            if ticket is not None:
                await vote(client, battle, ticket, rng.choice(VOTES), books)
                done += 1


async def ask(client: httpx.AsyncClient, battle: str, question: str, books: Books) -> str | None:
    """The ticket; None if the battle has failed."""
    path = f"/arena/api/battles/{battle}/messages"
    async with client.stream("POST", path, json={"text": question}) as response:
        if response.status_code != 200:
            books.events[f"status {response.status_code}"] += 1
            await asyncio.sleep(1)
            return None
        async for line in response.aiter_lines():
            event = json.loads(line[6:]) if line.startswith("data: ") else {}
            if event.get("type") == "ready":
                return event["ticket"]
            if event.get("type") == "failed" or "error" in event:
                books.events["failed"] += 1
    return None


async def vote(client: httpx.AsyncClient, battle: str, ticket: str, choice: str, books: Books) -> None:
    """Until it is answered."""
    end = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < end:
        begun = time.perf_counter()
        try:
            answer = await client.post("/arena/api/votes", json={"ticket": ticket, "vote": choice})
        except httpx.HTTPError:
            books.events["vote sent again"] += 1
            await asyncio.sleep(0.5)
            continue
        if answer.status_code == 200:
            books.vote.append(time.perf_counter() - begun)
            books.votes[battle] = choice
            return
        books.events[f"vote {answer.status_code}"] += 1
        if answer.status_code < 500:
            break
        await asyncio.sleep(0.5)
    books.unknown[battle] = choice


async def killer(what: ArenaServer | Postgres, times: int, every: float, books: Books) -> None:
    """kill -9, again and again."""
    for _ in range(times):
        await asyncio.sleep(every)
        await asyncio.to_thread(what.kill)
        await asyncio.to_thread(what.start)
        books.events[f"killed {type(what).__name__}"] += 1


def p95(values: list[float]) -> float:
    """In milliseconds."""
    return round(1000 * sorted(values)[int(0.95 * (len(values) - 1))], 1) if values else float("nan")


async def run(arguments: argparse.Namespace, folder: Path) -> int:
    """The whole benchmark."""
    names = ["one", "two"]
    models = [f"name = '{n}'\nmodel = '{arguments.model}'\nsampling = {{ max_tokens = 24 }}" for n in names]
    config = write_config(folder / "arena.toml", models, "[engine]\ncontext = 512", "start = 0.5\ncharacters = 40")
    postgres = None if arguments.sqlite else Postgres(folder / "postgres")
    database = f"sqlite:///{folder}/arena.db" if postgres is None else postgres.url
    server, books = ArenaServer(config, database, folder / "server.log"), Books()
    killers = [asyncio.create_task(killer(server, arguments.kill_server, arguments.every, books))]
    if postgres is not None:
        killers.append(asyncio.create_task(killer(postgres, arguments.kill_postgres, 1.37 * arguments.every, books)))
    begun = time.perf_counter()
    await asyncio.gather(*(person(server.url, n, arguments.rounds, books) for n in range(arguments.people)))
    seconds = time.perf_counter() - begun
    left = sum(not task.done() for task in killers)
    await asyncio.gather(*killers)
    url = database.replace("postgresql://", "postgresql+psycopg://")
    with create_engine(url).connect() as connection:
        kept = connection.execute(text("SELECT battle, winner FROM arena_votes")).all()
    server.stop()
    if postgres is not None:
        postgres.stop()
    found = {battle: VOTES[winner] for battle, winner in kept}
    lost = [battle for battle, choice in books.votes.items() if found.get(battle) != choice]
    extra = [battle for battle in found if battle not in books.votes and battle not in books.unknown]
    report = {
        "people": arguments.people,
        "votes": len(books.votes),
        "in_database": len(kept),
        "doubled": len(kept) - len(found),
        "lost_or_changed": len(lost),
        "not_in_books": len(extra),
        "never_answered": len(books.unknown),
        "page_p95_ms": p95(books.page),
        "vote_p95_ms": p95(books.vote),
        "seconds": round(seconds, 1),
        "killers_outlasted_people": left,
        "events": dict(books.events),
    }
    print(json.dumps(report, indent=2))
    return int(bool(lost or extra or len(kept) != len(found)))


def main() -> int:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill-server", type=int, default=0)
    parser.add_argument("--kill-postgres", type=int, default=0)
    parser.add_argument("--every", type=float, default=8.0, help="seconds between two kills")
    parser.add_argument("--sqlite", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="camelid-arena-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        return asyncio.run(run(arguments, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
