"""What workers count, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from camelid.serve.stats import Histogram, WorkerStats
from camelid.serve.worker import Worker

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_Family = type[GaugeMetricFamily] | type[CounterMetricFamily]

# name → kind, what it is, value
_NUMBERS: dict[str, tuple[_Family, str, Callable[[WorkerStats], float]]] = {
    "running_sequences": (GaugeMetricFamily, "Sequences in the engine's batch.", lambda it: it.running),
    "waiting_sequences": (GaugeMetricFamily, "Sequences that wait for room in the batch.", lambda it: it.waiting),
    "prompt_tokens_total": (CounterMetricFamily, "Tokens of prompts.", lambda it: it.prompt_tokens),
    "cached_tokens_total": (CounterMetricFamily, "Tokens of prompts found in the cache.", lambda it: it.cached_tokens),
    "completion_tokens_total": (CounterMetricFamily, "Tokens written.", lambda it: it.completion_tokens),
    "drafted_tokens_total": (CounterMetricFamily, "Draft tokens that were verified.", lambda it: it.drafted_tokens),
    "accepted_tokens_total": (CounterMetricFamily, "Draft tokens that were written.", lambda it: it.accepted_tokens),
    "tokens_per_second": (GaugeMetricFamily, "Tokens written a second, lately.", lambda it: it.tokens_per_second),
    "cache_pages": (GaugeMetricFamily, "Pages of the key/value cache.", lambda it: it.n_pages),
    "cache_pages_held": (GaugeMetricFamily, "Pages that running sequences hold.", lambda it: it.pages_held),
}
_TIMES: dict[str, tuple[str, Callable[[WorkerStats], Histogram]]] = {
    "time_to_first_token_seconds": ("From a request's arrival to its first token.", lambda it: it.first_token),
    "time_per_output_token_seconds": ("Between two tokens of a sequence.", lambda it: it.per_token),
}


class WorkerCollector(Collector):
    """The metrics of all workers, each with a label `model`, as they are when somebody asks."""

    def __init__(self, workers: Iterable[Worker]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """One family for each metric."""
        models = {worker.name: worker.stats() for worker in self._workers}
        for name, (kind, meaning, value) in _NUMBERS.items():
            family = kind(f"camelid_{name}", meaning, labels=["model"])
            for model, stats in models.items():
                family.add_metric([model], value(stats))
            yield family
        requests = CounterMetricFamily(
            "camelid_requests_total", "Requests that ended, by how.", labels=["model", "outcome"]
        )
        for model, stats in models.items():
            for outcome, count in sorted(stats.outcomes.items()):
                requests.add_metric([model, outcome], count)
        yield requests
        for name, (meaning, times) in _TIMES.items():
            histogram = HistogramMetricFamily(f"camelid_{name}", meaning, labels=["model"])
            for model, stats in models.items():
                histogram.add_metric([model], _buckets(times(stats)), times(stats).sum)
            yield histogram


def new_registry(workers: Iterable[Worker]) -> CollectorRegistry:
    """A registry of an application's own, with the metrics of its workers."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(workers))
    return registry


def _buckets(times: Histogram) -> list[tuple[str, float]]:
    return list(zip([*map(str, times.bounds), "+Inf"], accumulate(times.counts), strict=True))
