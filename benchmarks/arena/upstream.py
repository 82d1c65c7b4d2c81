"""A server that speaks OpenAI's API and writes at a speed that is said: for benchmarks of what an arena gives away."""

from __future__ import annotations

import asyncio
import json
import random
import threading

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from server import free_port

WORDS = "llamas live in the high Andes and sleep on their feet while wool grows and rain falls over quiet hills"


def upstream(first: float, per_second: float, seed: int) -> str:
    """URL of such a server in a thread.

    Args:
        first: seconds to the first piece, times a random factor from .5 to 1.5, as all times are.
        per_second: characters.
        seed: of the texts, whose lengths all servers draw alike.
    """
    app, rng = FastAPI(), random.Random(seed)

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> StreamingResponse:
        model = (await request.json())["model"]
        words = [rng.choice(WORDS.split()) for _ in range(rng.randint(20, 120))]

        async def pieces():
            await asyncio.sleep(first * rng.uniform(0.5, 1.5))
            for word in words:
                await asyncio.sleep((len(word) + 1) / per_second * rng.uniform(0.5, 1.5))
                choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
                yield f"data: {json.dumps({'model': model, 'choices': [choice]})}\n\n"
            yield 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

        return StreamingResponse(pieces(), media_type="text/event-stream")

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    return f"http://127.0.0.1:{port}/v1"
