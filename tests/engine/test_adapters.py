"""Several adapters on one base: each text is the one of its own adapter, whatever runs beside it."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.chat.adapters.engine import AdaptedEngine
from camelid.engine.backend_cpu import CpuBackend, instruction_sets
from camelid.engine.backend_numpy import NumpyBackend
from camelid.engine.backend_torch import TorchBackend
from camelid.engine.beam import beam_search
from camelid.engine.engine import Engine
from camelid.engine.options import EngineOptions
from camelid.engine.request import Request, SamplingParams
from camelid.weights.adapted import adapted
from camelid.weights.lora import open_adapter
from camelid.weights.open import open_weights
from tests.engine.backends import logits
from tests.weights.adapters import ALL, Made, made_adapter
from tests.weights.models import saved

BACKENDS = {"numpy": NumpyBackend, "torch": TorchBackend, "cpu": CpuBackend}
SHAPES = [
    {},
    {"dim": 96, "n_heads": 3, "n_kv_heads": 3, "head_dim": 32, "ffn_dim": 160, "n_layers": 3, "vocab_size": 301},
]

PARAMS = SamplingParams(temperature=0.0, max_tokens=12, seed=1, logprobs=1, draft_tokens=0)


def adapters_of(tmp_path, base):
    """Three: of all matrices, of two, and of a large rank."""
    made = [
        made_adapter(tmp_path / "all", base, Made(3, 4.0), seed=1),
        made_adapter(tmp_path / "few", base, Made(7, 9.0, rslora=True), ("q_proj", "up_proj"), seed=2),
        made_adapter(tmp_path / "wide", base, Made(21, 20.0), ALL[1:], seed=3),
    ]
    return [open_adapter(folder) for folder in made]


def engines(name, base, adapters, **options):
    """The base's engine, and each adapter's view of it."""
    options = EngineOptions(dtype="float32", context=256, **options)
    engine = Engine(BACKENDS[name].load(base, options), options)
    numbers = [engine.backend.add_adapter(adapter) for adapter in adapters]
    return [engine, *(AdaptedEngine(engine, number) for number in numbers)]


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("n_ids", [1, 2, 5, 40, 130])
def test_an_adapter_beside_its_base_says_what_the_two_merged_say(tmp_path, name, sizes, n_ids):
    base = saved(tmp_path, "hf", **sizes)
    adapters, weights = adapters_of(tmp_path, base), open_weights(base)
    ids = np.random.default_rng(n_ids).integers(0, weights.config.vocab_size, n_ids).tolist()
    merged = [weights, *(adapted(weights, adapter) for adapter in adapters)]
    for engine, whole in zip(engines(name, weights, adapters), merged, strict=True):
        same, options = BACKENDS["cpu" if name == "cpu" else "numpy"], EngineOptions(dtype="float32", context=256)
        expected = logits(Engine(same.load(whole, options), options), ids)
        # The C++ engine keeps keys and values in half precision: a rounding that falls otherwise is seen later on.
        close = 5e-4 if name == "cpu" else 1e-5
        assert np.abs(logits(engine, ids) - expected).max() < close * max(1, np.abs(expected).max())


def crowd(all_engines, prompts):
    """Texts of several prompts on each engine, all at once: (engine, prompt) → ids."""
    owner = all_engines[0]
    asked, texts = {}, {}
    for place, engine in enumerate(all_engines):
        for number, prompt in enumerate(prompts):
            asked[engine.add(Request(ids=tuple(prompt), params=PARAMS))] = place, number
    while owner.is_busy:
        for token in owner.step():
            texts.setdefault(asked[token.request], []).append((token.id, token.logprob))
    return texts


@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
@pytest.mark.parametrize("threads", [1, 2])
def test_each_text_has_the_same_bits_alone_and_in_a_crowd(tmp_path, quant, threads):
    from camelid.weights import save_weights

    base = saved(tmp_path, "hf")
    adapters = adapters_of(tmp_path, base)
    weights = open_weights(save_weights(base, tmp_path / "m.gguf", format="gguf", quant=quant))
    random = np.random.default_rng(0)
    prompts = [random.integers(0, 320, size).tolist() for size in (3, 17, 60, 90)]
    options = {"max_batch_tokens": 150, "threads": threads}
    together = crowd(engines("cpu", weights, adapters, **options), prompts)
    for place in range(4):
        for number, prompt in enumerate(prompts):
            alone = engines("cpu", weights, adapters, threads=1)
            tokens = alone[place].stream(Request(ids=tuple(prompt), params=PARAMS))
            assert [(token.id, token.logprob) for token in tokens] == together[place, number]
    assert len({tuple(together[place, 2]) for place in range(4)}) == 4


@pytest.mark.parametrize("name", BACKENDS)
def test_keys_and_values_are_never_shared_across_adapters(tmp_path, name):
    base = saved(tmp_path, "hf")
    adapters, weights = adapters_of(tmp_path, base), open_weights(base)
    prompt = np.random.default_rng(5).integers(0, 320, 100).tolist()
    params = SamplingParams(temperature=0.0, max_tokens=8, seed=1)
    fresh = []
    for place in range(4):
        engine = engines(name, weights, adapters)[place]
        fresh.append([token.id for token in engine.stream(Request(ids=tuple(prompt), params=params))])
    shared = engines(name, weights, adapters)
    for again in (False, True):
        for place, engine in enumerate(shared):
            tokens = list(engine.stream(Request(ids=tuple(prompt), params=params)))
            assert [token.id for token in tokens] == fresh[place]
            assert (tokens[0].n_cached > 0) is again  # its own pages are found again, those of others never


def test_scored_prompts_that_begin_alike_wait_for_their_own_adapter(tmp_path):
    base = saved(tmp_path, "hf")
    adapters, weights = adapters_of(tmp_path, base), open_weights(base)
    prompt = tuple(np.random.default_rng(6).integers(0, 320, 50).tolist())
    alone = [engine.result(Request(ids=prompt, wants="logprobs")) for engine in engines("cpu", weights, adapters)]
    shared = engines("cpu", weights, adapters)
    numbers = [engine.add(Request(ids=prompt, wants="logprobs")) for engine in (*shared, *shared)]
    found = {}
    while shared[0].is_busy:
        found |= {outcome.request: outcome for outcome in shared[0].step()}
    for place, number in enumerate(numbers):
        assert np.array_equal(found[number].logprobs, alone[place % 4].logprobs)


def test_beams_and_hidden_states_are_the_adapters(tmp_path):
    base = saved(tmp_path, "hf")
    adapters, weights = adapters_of(tmp_path, base), open_weights(base)
    prompt = np.random.default_rng(7).integers(0, 320, 20).tolist()
    whole = Engine(
        NumpyBackend.load(adapted(weights, adapters[0]), EngineOptions(context=64)), EngineOptions(context=64)
    )
    view = engines("numpy", weights, adapters)[1]
    assert beam_search(view, prompt, 3, max_tokens=6)[0].ids == beam_search(whole, prompt, 3, max_tokens=6)[0].ids
    ours, theirs = (each.result(Request(ids=tuple(prompt), wants="hidden")).rows for each in (view, whole))
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("isa", instruction_sets())
def test_every_instruction_set_adds_adapters(tmp_path, isa):
    base = saved(tmp_path, "hf")
    adapters, weights = adapters_of(tmp_path, base), open_weights(base)
    options = EngineOptions(dtype="float32", context=128)
    engine = Engine(CpuBackend(weights, options, isa), options)
    view = AdaptedEngine(engine, engine.backend.add_adapter(adapters[2]))
    whole = Engine(CpuBackend(adapted(weights, adapters[2]), options, isa), options)
    ids = list(range(30))
    assert np.abs(logits(view, ids) - logits(whole, ids)).max() < 1e-3
