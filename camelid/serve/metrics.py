"""What workers count, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from camelid.serve.stats import Histogram, WorkerStats

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# name → kind, what it is, value
_NUMBERS: dict[str, tuple[str, str, Callable[[WorkerStats], float]]] = {
    "running_sequences": ("gauge", "Sequences in the engine's batch.", lambda it: it.running),
    "waiting_sequences": ("gauge", "Sequences that wait for room in the batch.", lambda it: it.waiting),
    "prompt_tokens_total": ("counter", "Tokens of prompts.", lambda it: it.prompt_tokens),
    "cached_tokens_total": ("counter", "Tokens of prompts found in the cache.", lambda it: it.cached_tokens),
    "completion_tokens_total": ("counter", "Tokens written.", lambda it: it.completion_tokens),
    "tokens_per_second": ("gauge", "Tokens written a second, lately.", lambda it: it.tokens_per_second),
    "cache_pages": ("gauge", "Pages of the key/value cache.", lambda it: it.n_pages),
    "cache_pages_held": ("gauge", "Pages that running sequences hold.", lambda it: it.pages_held),
}
_TIMES: dict[str, tuple[str, Callable[[WorkerStats], Histogram]]] = {
    "time_to_first_token_seconds": ("From a request's arrival to its first token.", lambda it: it.first_token),
    "time_per_output_token_seconds": ("Between two tokens of a sequence.", lambda it: it.per_token),
}


def render(models: Mapping[str, WorkerStats]) -> str:
    """All metrics of the models, each with a label `model`."""
    return "\n".join(_lines(models)) + "\n"


def _lines(models: Mapping[str, WorkerStats]) -> Iterator[str]:
    for name, (kind, meaning, value) in _NUMBERS.items():
        yield from _head(name, kind, meaning)
        for model, stats in models.items():
            yield _line(name, {"model": model}, value(stats))
    yield from _head("requests_total", "counter", "Requests that ended, by how.")
    for model, stats in models.items():
        for outcome, count in sorted(stats.outcomes.items()):
            yield _line("requests_total", {"model": model, "outcome": outcome}, count)
    for name, (meaning, times) in _TIMES.items():
        yield from _head(name, "histogram", meaning)
        for model, stats in models.items():
            yield from _histogram(name, model, times(stats))


def _head(name: str, kind: str, meaning: str) -> Iterable[str]:
    return f"# HELP camelid_{name} {meaning}", f"# TYPE camelid_{name} {kind}"


def _histogram(name: str, model: str, times: Histogram) -> Iterator[str]:
    total = 0
    for bound, count in zip([*map(str, times.bounds), "+Inf"], times.counts, strict=True):
        total += count
        yield _line(f"{name}_bucket", {"model": model, "le": bound}, total)
    yield _line(f"{name}_sum", {"model": model}, times.sum)
    yield _line(f"{name}_count", {"model": model}, total)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"camelid_{name}{{{inside}}} {value:.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
