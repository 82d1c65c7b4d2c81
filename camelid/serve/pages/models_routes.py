"""The Models page: what is loaded, and how fast it is just now."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from camelid.chat.inspect import describe
from camelid.engine.memory import cache_bytes_per_token
from camelid.errors import CamelidError
from camelid.files import size_text
from camelid.serve.pages.shell import render
from camelid.serve.stats import Histogram
from camelid.serve.worker import Worker

router = APIRouter(include_in_schema=False)


@router.get("/models")
def models(request: Request) -> HTMLResponse:
    """What is loaded; complete without JavaScript, which only keeps the speeds fresh."""
    shown = [{"name": worker.name, "facts": facts(worker), "live": live(worker)} for worker in request.app.state.models]
    return render(request, "models.html", models=shown)


@router.get("/api/models")
async def speeds(request: Request) -> dict[str, dict[str, str]]:
    """For each model the words that stand for its speeds and queues at the moment."""
    return {worker.name: live(worker) for worker in request.app.state.models}


def facts(worker: Worker) -> dict[str, str]:
    """What does not change while it runs, in words."""
    llama = worker.llama
    found = describe(llama.weights, hashes=False)
    shape, backend = found["shape"], llama.engine.backend
    isa, threads = getattr(backend, "isa", None), getattr(backend, "threads", None)
    room = llama.engine.pages.n_pages * backend.page_size
    cache = room * cache_bytes_per_token(llama.config, backend.bytes_per_number)
    kinds = ", ".join(f"{count} × {kind}" for kind, count in found["quants"].items())
    return {
        "Family": found["family"] or f"a {found['architecture']} of no known shape",
        "Parameters": f"{found['parameters']:,}",
        "Shape": f"{shape['n_layers']} layers, {shape['dim']} wide, feed-forward {shape['ffn_dim']}",
        "Attention": f"{shape['n_heads']} heads, {shape['n_kv_heads']} keys and values, {shape['head_dim']} wide",
        "Vocabulary": f"{shape['vocab_size']:,} tokens",
        "Numbers": f"{kinds}; {found['bits_per_weight']} bits a weight",
        "Files": f"{found['format']}, {size_text(found['bytes'])}",
        "Context": f"{llama.context:,} tokens of {shape['context']:,} that it was made for",
        "Cache": f"room for {room:,} tokens, up to {size_text(cache)}",
        "Chat format": _chat_format(worker),
        "Engine": ", ".join(filter(None, [backend.name, isa, _counted(threads, "thread")])),
    }


def live(worker: Worker) -> dict[str, str]:
    """Speeds and queues, in words."""
    stats = worker.stats()
    per_token = _mean(stats.per_token)
    return {
        "speed": f"{stats.tokens_per_second:.1f}" if stats.tokens_per_second else "idle",
        "running": str(stats.running),
        "waiting": str(stats.waiting),
        "first": _seconds(_mean(stats.first_token)),
        "each": _seconds(per_token) + (f", {1 / per_token:.1f} tokens/s" if per_token else ""),
        "prompt": f"{stats.prompt_tokens:,}"
        + (f", {stats.cached_tokens:,} from the cache" if stats.cached_tokens else ""),
        "written": f"{stats.completion_tokens:,}",
        "held": f"{stats.pages_held:,} of {stats.n_pages:,} pages",
    }


def _chat_format(worker: Worker) -> str:
    """The format of conversations: the model's own, or one named by hand."""
    try:
        name = worker.llama.chat_format.name
    except CamelidError:
        return "none; it continues text only"
    return "the model's own template" if name == "template" else name


def _mean(times: Histogram) -> float | None:
    count = sum(times.counts)
    return times.sum / count if count else None


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.2f} s"


def _counted(n: Any, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}" if n else ""
