"""What is said when a model does not fit, and how much of it does."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from camelid.engine import memory
from camelid.engine.options import EngineOptions
from camelid.errors import OptionError, ResourceError
from tests.tiny import tiny_config

GB = 10**9


CONFIG = tiny_config(context=4096)
PER_TOKEN = 2 * 2 * 2 * 16 * 4  # keys and values, layers, key/value heads, their width, bytes
MODEL = SimpleNamespace(path=Path("big.gguf"), config=CONFIG)


def refusal(free: float, bytes_per_weight: int = 4, **options: int) -> str:
    with pytest.raises(ResourceError) as error:
        memory.check_fits(MODEL, bytes_per_weight, EngineOptions(**options), "numpy", int(free))
    return str(error.value)


def test_a_refusal_names_settings_that_fit():
    assert memory.cache_bytes_per_token(CONFIG, 4) == PER_TOKEN
    weights = CONFIG.n_parameters * 4 + memory.SCRATCH
    free = weights + 1000 * PER_TOKEN
    said = refusal(free, context=4096)
    assert said.startswith("big.gguf: needs 0.3 GB of memory on the numpy backend")
    assert "--context 960 would fit" in said
    memory.check_fits(MODEL, 4, EngineOptions(context=960), "numpy", int(free))
    both = refusal(free, context=512, cache_tokens=2000)
    assert "--context 960 --cache-tokens 960 would fit" in both
    memory.check_fits(MODEL, 4, EngineOptions(context=960, cache_tokens=960), "numpy", int(free))
    assert "--backend cpu" in refusal(weights)
    assert "smaller model" in refusal(0, bytes_per_weight=2)


def test_the_context_is_the_models_unless_memory_ends_before(caplog):
    caplog.set_level(logging.WARNING)
    assert memory.fitting_context(CONFIG, EngineOptions(), 4, GB) == 4096
    assert not caplog.messages
    assert memory.fitting_context(CONFIG, EngineOptions(), 4, 1000 * PER_TOKEN) == 800
    assert caplog.messages == ["context reduced from 4096 to 800 tokens: memory for the cache ends there"]
    caplog.clear()
    assert memory.fitting_context(CONFIG, EngineOptions(context=5000), 4, GB) == 5000
    assert "the model was made for" in caplog.messages[0]


def test_the_cache_is_bounded():
    assert memory.cache_tokens(CONFIG, EngineOptions(), 4096, 4, 100 * GB) == 8 * 4096
    assert memory.cache_tokens(CONFIG, EngineOptions(), 4096, 4, 4 * 5000 * PER_TOKEN) == 5000
    assert memory.cache_tokens(CONFIG, EngineOptions(cache_tokens=4500), 4096, 4, GB) == 4500
    with pytest.raises(OptionError, match="--context 100"):
        memory.cache_tokens(CONFIG, EngineOptions(cache_tokens=100), 4096, 4, GB)
