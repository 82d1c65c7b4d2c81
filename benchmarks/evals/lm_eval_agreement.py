"""camelid eval against lm-eval with transformers: the same prompts and log-likelihoods, and how long each takes.

It needs lm-eval 0.4.13, torch and transformers, and a folder for it (camelid convert MODEL FOLDER --to hf):
    python benchmarks/evals/lm_eval_agreement.py mmlu --data mmlu.tar.gz --limit 200 \\
        --model FOLDER [--fast MODEL] [--dtype bfloat16]

camelid computes FOLDER in float32 with numpy, lm-eval in --dtype; with --fast MODEL, a quantised file, camelid is timed
on its C++ engine, too. Rounds go in turns. Printed: requests, the largest difference of a log-likelihood, picks that
differ, seconds per 1,000 requests of each.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

import camelid
from camelid.engine import EngineOptions
from camelid.evals.ask import LlamaAsker
from camelid.evals.plan import make_plan
from camelid.evals.sources import core_source, open_source
from camelid.evals.task import Choices
from camelid.evals.tasks import find_task


def requests_of(task_name: str, data: str | None, limit: int | None, shots: int | None) -> list[Choices]:
    task = find_task(task_name)
    source = core_source(task) if data is None else open_source(data, task.splits.items)
    plan = make_plan(task, source, limit, shots)
    requests = [plan.request(number) for number in range(len(plan.items))]
    assert all(isinstance(request, Choices) for request in requests), "only tasks that ask for likelihoods"
    return [Choices(request.context, request.continuations) for request in requests if isinstance(request, Choices)]


def by_camelid(
    model: str, backend: str, threads: int, requests: list[Choices]
) -> tuple[list[tuple[float, ...]], float]:
    asker = LlamaAsker(camelid.load(model, backend=backend, options=EngineOptions(threads=threads)))
    started = time.perf_counter()
    found: dict[int, Any] = {
        place: reply.answer.logprobs for place, reply in asker.ask((request, "") for request in requests)
    }
    seconds = time.perf_counter() - started
    return [found[place] for place in range(len(requests))], seconds


def by_lm_eval(
    model: str, dtype: str, batch: str, threads: int, requests: list[Choices]
) -> tuple[list[tuple[float, ...]], float]:
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(threads)
    harness = HFLM(pretrained=model, dtype=dtype, device="cpu", batch_size=batch)
    pairs = [pair for each in requests for pair in zip(each.contexts, each.continuations, strict=True)]
    asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    started = time.perf_counter()
    found = iter(harness.loglikelihood(asked, disable_tqdm=True))
    seconds = time.perf_counter() - started
    return [tuple(next(found)[0] for _ in each.continuations) for each in requests], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--data")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--shots", type=int)
    parser.add_argument("--model", required=True)
    parser.add_argument("--fast")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", default="8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    requests = requests_of(given.task, given.data, given.limit, given.shots)
    n = sum(len(each.continuations) for each in requests)
    seconds: dict[str, list[float]] = {}
    logprobs: dict[str, list[tuple[float, ...]]] = {}
    for _ in range(given.rounds):
        runs = {
            "camelid, numpy float32": lambda: by_camelid(given.model, "numpy", given.threads, requests),
            f"lm-eval, {given.dtype}": lambda: by_lm_eval(
                given.model, given.dtype, given.batch, given.threads, requests
            ),
        }
        if given.fast:
            runs["camelid, C++"] = lambda: by_camelid(given.fast, "cpu", given.threads, requests)
        for name, run in runs.items():
            logprobs[name], took = run()
            seconds.setdefault(name, []).append(1000 * took / n)
    ours, theirs = logprobs["camelid, numpy float32"], logprobs[f"lm-eval, {given.dtype}"]
    gaps = [abs(a - b) for own, other in zip(ours, theirs, strict=True) for a, b in zip(own, other, strict=True)]
    picks = sum(int(np.argmax(own)) != int(np.argmax(other)) for own, other in zip(ours, theirs, strict=True))
    found = {"task": given.task, "items": len(requests), "requests": n, "largest_difference": max(gaps)}
    found |= {"picks_that_differ": picks, "seconds_per_1000_requests": seconds}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
