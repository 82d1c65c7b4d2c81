"""A server that nobody here wrote, llama-cpp-python's, beside camelid's engine in battles; killed in the middle of one.

    python benchmarks/arena/endpoint.py --model MODEL.gguf --python PYTHON_WITH_LLAMA_CPP [--battles 5]

PYTHON_WITH_LLAMA_CPP has `pip install 'llama-cpp-python[server]'`. Exit status 1 if a battle before the kill fails, or
the one in the middle, or one after it, does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import httpx2 as httpx
from server import ArenaServer, free_port, write_config


def start(python: str, model: str, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """llama-cpp-python's server, once it answers."""
    port = free_port()
    command = [python, "-m", "llama_cpp.server", "--model", model, "--model_alias", "smol", "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    while process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2):
                return process, f"http://127.0.0.1:{port}/v1"
        except OSError:
            time.sleep(0.3)
    raise SystemExit(log.read_text())


async def battle(client: httpx.AsyncClient, kill: subprocess.Popen[bytes] | None = None) -> str:
    """How a battle ended: `voted`, or what the page was told."""
    id = (await client.post("/arena/api/battles", json={})).json()["id"]
    path, body = f"/arena/api/battles/{id}/messages", {"text": "Tell me a long story about a llama."}
    async with client.stream("POST", path, json=body) as response:
        n_deltas = 0
        async for line in response.aiter_lines():
            event = json.loads(line[6:]) if line.startswith("data: ") else {}
            n_deltas += event.get("type") == "delta"
            if kill is not None and n_deltas == 4:
                kill.kill()
            if event.get("type") == "failed":
                return event["message"]
            if event.get("type") == "ready":
                answer = await client.post("/arena/api/votes", json={"ticket": event["ticket"], "vote": "TIE"})
                return "voted" if answer.status_code == 200 else answer.text
    return "the stream broke off"


async def run(arguments: argparse.Namespace, folder: Path) -> int:
    """The whole benchmark."""
    other, url = start(arguments.python, arguments.model, folder / "llama_cpp.log")
    sampling = "sampling = { max_tokens = 200, temperature = 0.7 }"
    models = [
        f"name = 'here'\nmodel = '{arguments.model}'\n{sampling}",
        f"name = 'there'\nurl = '{url}'\nmodel = 'smol'",
    ]
    models[1] += f"\n{sampling}"
    config = write_config(folder / "arena.toml", models, "", "characters = 4")
    server = ArenaServer(config, f"sqlite:///{folder}/arena.db", folder / "arena.log")
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            before = [await battle(client) for _ in range(arguments.battles)]
            killed, after = await battle(client, other), await battle(client)
    finally:
        server.stop()
        other.kill()
    print(json.dumps({"before": before, "killed": killed, "after": after}, indent=2))
    return int(set(before) != {"voted"} or "could not answer" not in killed or "could not answer" not in after)


def main() -> int:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--battles", type=int, default=5)
    with tempfile.TemporaryDirectory(prefix="camelid-endpoint-", ignore_cleanup_errors=True) as folder:
        return asyncio.run(run(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
