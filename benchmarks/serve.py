"""Many streaming clients at once on `camelid serve`: is each answer the one given alone, and what does serving cost?

    python benchmarks/serve.py [MODEL] [--clients 64] [--requests 20] [--tokens 64]

The server runs in a process of its own, with the flags behind `--`; the clients share this one. Each of `--prompts`
questions is first asked alone. Then every client asks its share, greedily, one after the other on one connection.
`camelid bench --batch 32` runs before and after, so that a busy machine shows, and the engine alone the same requests.
Prints tokens/s of all clients together, their ratios to both, the seconds to the first token, and processor time a
token by part; appends a JSON line to benchmarks/results/serve.jsonl. Exit status 1: an answer differed or was an error.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import camelid
from camelid.engine import EngineOptions, Token
from camelid.hub.catalog import DEFAULT_MODEL
from camelid.hub.store import resolve

RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
TOPICS = ("rivers", "bread", "clocks", "glass", "bridges", "maps", "salt", "ships", "music", "paper")
ASKS = ("Tell me about", "What is special about", "Write a short story about", "Who first thought about")


@dataclass
class Answer:
    """What a client got: the text, tokens by the server's count, and seconds to the first token and to the end."""

    status: int
    text: str
    n_tokens: int
    first: float
    whole: float


class Connection(asyncio.BufferedProtocol):
    """An HTTP/1.1 connection that is kept, reading nothing but what it must while an answer runs."""

    def __init__(self) -> None:
        self._space, self._n_bytes = bytearray(2**16), 0  # no memory is taken for a piece: clients use the same cores
        self._done = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._first = 0.0
        self._is_stream = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, size_hint: int) -> memoryview:
        if self._n_bytes == len(self._space):
            self._space = self._space + bytearray(len(self._space))
        return memoryview(self._space)[self._n_bytes :]

    def buffer_updated(self, n_bytes: int) -> None:
        if not self._first:
            self._first = time.perf_counter()
            self._is_stream = self._space.find(b"\r\ntransfer-encoding: chunked", 0, n_bytes) >= 0
        self._n_bytes = end = self._n_bytes + n_bytes
        if self._space[end - 5 : end] == b"0\r\n\r\n" if self._is_stream else self._is_whole():
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError(f"closed by the server: {error}"))

    def _is_whole(self) -> bool:
        head, end, body = self._answer().partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        return bool(end) and length is not None and len(body) >= int(length[1])

    def _answer(self) -> bytes:
        return bytes(memoryview(self._space)[: self._n_bytes])

    async def post(self, host: str, path: str, body: dict[str, Any]) -> Answer:
        """Send a request and read its answer."""
        content = json.dumps(body).encode()
        self._n_bytes, self._first, self._done = 0, 0.0, asyncio.get_running_loop().create_future()
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        started = time.perf_counter()
        self._transport.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await asyncio.wait_for(self._done, 600)
        return _read(self._answer(), self._first - started, time.perf_counter() - started)

    def close(self) -> None:
        self._done.cancel()
        self._transport.close()


def _read(data: bytes, first: float, whole: float) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status != 200:
        return Answer(status, body.decode("utf-8", "replace"), 0, first, whole)
    text, n_tokens = [], 0
    for line in re.findall(rb"data: (\{.*\})\n", body):
        event = json.loads(line)
        text += [choice["delta"].get("content") or "" for choice in event["choices"]]
        n_tokens = (event.get("usage") or {}).get("completion_tokens", n_tokens)
        if "error" in event:
            status = 500
    return Answer(
        status if body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") else 0, "".join(text), n_tokens, first, whole
    )


class Load:
    """Questions, and clients that ask them."""

    def __init__(self, url: str, model: str, choices: argparse.Namespace) -> None:
        self.address, self.model, self.choices = urlsplit(url), model, choices
        self.questions = [
            f"{ASKS[n % len(ASKS)]} {TOPICS[n // len(ASKS) % len(TOPICS)]}, number {n}." for n in range(choices.prompts)
        ]

    async def connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.address.hostname, self.address.port)
        return connection

    async def ask(self, connection: Connection, question: int) -> Answer:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.questions[question]}],
            "max_tokens": self.choices.tokens,
            "temperature": 0,
            "ignore_stop": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return await connection.post(self.address.netloc, "/v1/chat/completions", body)

    async def alone(self) -> list[Answer]:
        """Each question's answer when nothing else runs."""
        connection = await self.connect()
        answers = [await self.ask(connection, question) for question in range(len(self.questions))]
        connection.close()
        return answers

    async def crowd(self) -> list[tuple[int, Answer]]:
        """All clients at once: each one's questions, and their answers."""

        async def client(number: int) -> list[tuple[int, Answer]]:
            connection, answers = await self.connect(), []
            for turn in range(self.choices.requests):
                question = (number * self.choices.requests + turn) % len(self.questions)
                answers.append((question, await self.ask(connection, question)))
            connection.close()
            return answers

        clients = await asyncio.gather(*map(client, range(self.choices.clients)))
        return [answer for answers in clients for answer in answers]


@contextmanager
def server(model: Path, flags: list[str]) -> Iterator[tuple[str, int]]:
    """A server on a free port: its URL and process number."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "camelid", "serve", str(model), "--port", "0", "--data", f"{folder}/serve.db"]
        with subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "Ctrl-C" in line:
                    break
            match = re.search(r"http://\S+", "".join(lines))
            if match is None:
                sys.exit("".join(lines))
            try:
                yield match[0], process.pid
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def bench(model: Path, tokens: int) -> float:
    """Tokens/s of the engine alone, 32 sequences at once, as `camelid bench` measures."""
    command = [sys.executable, "-m", "camelid", "bench", str(model), "--batch", "32", "--tokens", str(tokens), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["decode_tokens_per_second"])


def engine_on_the_same(model: Path, load: Load) -> float:
    """Tokens/s of the engine on the crowd's requests: prompts are read, and who has ended makes room for the next."""
    flags, choices = load.choices.flags, load.choices
    threads = int(flags[flags.index("--threads") + 1]) if "--threads" in flags else None
    llama = camelid.load(model, options=EngineOptions(threads=threads))
    engine = llama.engine
    requests = [
        llama.chat_request(question, temperature=0, max_tokens=choices.tokens, ignore_stop=True)
        for question in load.questions
    ]
    for request in requests:
        list(engine.stream(request))
    left = dict.fromkeys(range(choices.clients), choices.requests)
    clients: dict[int, int] = {}  # the engine's number → whose request it is

    def ask(client: int) -> None:
        question = (client * choices.requests + choices.requests - left[client]) % len(requests)
        left[client] -= 1
        clients[engine.add(requests[question])] = client

    n_tokens, started = 0, time.perf_counter()
    for client in left:
        ask(client)
    while engine.is_busy:
        for token in engine.step():
            assert isinstance(token, Token)
            n_tokens += 1
            if token.finish_reason and left[clients[token.request]]:
                ask(clients[token.request])
    return n_tokens / (time.perf_counter() - started)


def resident(pid: int) -> float:
    """MB of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1000


def processor_seconds(pid: int) -> tuple[float, float]:
    """Processor time so far of the server's event loop, its first thread, and of its other threads (Linux)."""
    tasks = [(path.name, path / "schedstat") for path in Path(f"/proc/{pid}/task").iterdir()]
    seconds = {name: int(path.read_text().split()[0]) / 1e9 for name, path in tasks if path.exists()}
    loop = seconds.pop(str(pid), 0.0)
    return loop, sum(seconds.values())


def measure(choices: argparse.Namespace) -> dict[str, Any]:
    """Everything in one run."""
    model = resolve(choices.model)
    before = bench(model, choices.tokens)
    with server(model, choices.flags) as (url, pid):
        load = Load(url, choices.served_as or model.name.removesuffix(".gguf"), choices)
        alone = asyncio.run(load.alone())
        memory, used, own, started = resident(pid), processor_seconds(pid), time.process_time(), time.perf_counter()
        crowd = asyncio.run(load.crowd())
        seconds, own = time.perf_counter() - started, time.process_time() - own
        loop, others = (after - before for before, after in zip(used, processor_seconds(pid), strict=True))
        grown = resident(pid)
    same = engine_on_the_same(model, load)
    after = bench(model, choices.tokens)
    good = [answer for _, answer in crowd if answer.status == 200]
    firsts = sorted(answer.first for answer in good) or [0.0]
    n_tokens = sum(answer.n_tokens for answer in good)
    speed, engine = n_tokens / seconds, (before + after) / 2
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "model": model.name,
        "clients": choices.clients,
        "requests": len(crowd),
        "tokens_each": choices.tokens,
        "errors": len(crowd) - len(good) + sum(answer.status != 200 for answer in alone),
        "different": sum(
            (answer.text, answer.n_tokens) != (alone[question].text, alone[question].n_tokens)
            for question, answer in crowd
        ),
        "tokens_per_second": round(speed, 1),
        "engine_alone": [round(before, 1), round(after, 1)],
        "ratio": round(speed / engine, 3),
        "engine_on_the_same": round(same, 1),
        "ratio_to_the_same": round(speed / same, 3),
        "first_token_p50": round(firsts[len(firsts) // 2], 4),
        "first_token_p95": round(firsts[int(len(firsts) * 0.95)], 4),
        "alone_first_token_p50": round(statistics.median(answer.first for answer in alone), 4),
        "processor_us_per_token": {
            name: round(part / max(1, n_tokens) * 1e6, 1)
            for name, part in (("loop", loop), ("other_threads", others), ("clients", own))
        },
        "memory_mb": [round(memory, 1), round(grown, 1)],
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20, help="of each client")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--prompts", type=int, default=64, help="different questions; each is asked alone first")
    parser.add_argument("--served-as", help="the model's name at the server, if not its file's")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    ours = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    choices = parser.parse_args(ours)
    choices.flags = sys.argv[len(ours) + 2 :]
    row = measure(choices)
    with choices.out.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
    if choices.json:
        print(json.dumps(row))
    else:
        low, high = row["memory_mb"]
        print(f"{row['requests']} requests of {choices.clients} clients, {choices.tokens} tokens each")
        print(f"  errors {row['errors']}, answers that differ from those given alone {row['different']}")
        print(f"  {row['tokens_per_second']} tokens/s, {row['ratio']:.0%} of the engine's {row['engine_alone']}")
        print(f"  {row['ratio_to_the_same']:.0%} of the {row['engine_on_the_same']} it has on the same requests")
        print(f"  first token after {row['first_token_p50']:.3f} s (median), {row['first_token_p95']:.3f} s (p95)")
        parts = ", ".join(f"{name} {part:.0f}" for name, part in row["processor_us_per_token"].items())
        print(f"  processor time a token, microseconds: {parts}")
        print(f"  the server held {low:.0f} MB before and {high:.0f} MB behind it")
    sys.exit(1 if row["errors"] or row["different"] else 0)


if __name__ == "__main__":
    main()
