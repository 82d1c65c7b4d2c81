"""Adapters as models of a server, beside their base."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from camelid.chat.load import beside, load
from camelid.cli.verbs.serve import named_adapters
from camelid.engine.options import EngineOptions
from camelid.errors import OptionError
from camelid.serve.adapter_worker import AdapterWorker
from camelid.serve.models import Models
from camelid.serve.worker import Worker
from camelid.weights.lora import open_adapter
from tests.weights.adapters import Made, made_adapter

OPTIONS = EngineOptions(threads=1, context=256)


@pytest.fixture(scope="module")
def folders(smollm2_path, tmp_path_factory):
    place = tmp_path_factory.mktemp("adapters")
    return [made_adapter(place / name, smollm2_path, Made(8, 1.0), seed=seed) for seed, name in enumerate("ab")]


async def text_of(worker, prompt):
    request = worker.llama.request(prompt, temperature=0, max_tokens=8, ignore_stop=True)
    return "".join([piece.text async for pieces in worker.stream(request) for piece in pieces])


@pytest.mark.slow
def test_models_of_one_base_are_answered_at_once_each_as_alone(smollm2_path, folders):
    prompts = ["The capital of France is", "Once upon a time", "def main():"]
    alone = [load(smollm2_path, adapter=folder, backend="cpu", options=OPTIONS) for folder in (None, *folders)]
    expected = [
        [llama.generate(prompt, temperature=0, max_tokens=8, ignore_stop=True).text for prompt in prompts]
        for llama in alone
    ]
    owner = Worker("base", load(smollm2_path, backend="cpu", options=OPTIONS))
    workers = [owner]
    workers += [AdapterWorker(f.name, beside(owner.llama, open_adapter(f)), owner) for f in folders]
    models = Models(workers)

    async def play():
        for worker in models:
            worker.start()
        texts = await asyncio.gather(*(text_of(worker, prompt) for worker in models for prompt in prompts))
        counted = [worker.stats().completion_tokens for worker in models]
        prompted = [worker.stats().prompt_tokens for worker in models]
        scores = [await worker.call(lambda llama: llama.logits([1, 2, 3])) for worker in models]
        await models.stop(5)
        return texts, counted, prompted, scores

    texts, counted, prompted, scores = asyncio.run(play())
    assert texts == [text for own in expected for text in own]
    assert counted == [24, 24, 24]
    assert len(set(prompted)) == 1
    assert not any(worker.is_alive for worker in models)
    for place, llama in enumerate(alone):
        assert np.array_equal(scores[place], llama.logits([1, 2, 3]))
    pages = owner.llama.engine.pages
    assert pages.n_available == pages.n_pages


def test_names_of_adapters():
    assert named_adapters(["runs/x/sft", "polite=runs/y/sft"]) == {"sft": "runs/x/sft", "polite": "runs/y/sft"}
    with pytest.raises(OptionError, match="two are called sft"):
        named_adapters(["runs/x/sft", "runs/y/sft"])
