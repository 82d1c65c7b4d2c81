"""The forward passes, NumPy and PyTorch, give what transformers gives, for every kind of member."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from camelid.model import reference
from camelid.model.config import ModelConfig, RopeScaling
from camelid.model.llama_torch import LlamaTorch, mix_causal
from camelid.model.rope import rope_table
from tests.model.hf import hf_logits, hf_model
from tests.tiny import tiny_config, tiny_tensors

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}

SHORT, LONG = [1.0 + 0.03 * i for i in range(8)], [1.5 + 2.0 * i for i in range(8)]
LONGROPE = RopeScaling(
    rule="longrope", original_context=4096, attention_factor=1.19, divisors=tuple(SHORT), long_divisors=tuple(LONG)
)
LONGROPE_OF_TRANSFORMERS = {
    "rope_type": "longrope",
    "short_factor": SHORT,
    "long_factor": LONG,
    "original_max_position_embeddings": 4096,
    "attention_factor": 1.19,
}

# name → (changes to the tiny shape, transformers' extra rope parameters)
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "multi-head": ({"n_kv_heads": 4}, {}),
    "grouped": ({}, {}),
    "one shared head": ({"n_kv_heads": 1}, {}),
    "tied": ({"ties_embeddings": True}, {}),
    "head width free": ({"head_dim": 24}, {}),
    "Llama 1": ({"n_kv_heads": 4, "norm_eps": 1e-6}, {}),
    "Code Llama": ({"rope_theta": 1e6}, {}),
    "Llama 3": ({"rope_theta": 5e5}, {}),
    "Llama 3.1": (
        {"head_dim": 128, "rope_theta": 5e5, "rope_scaling": RopeScaling(rule="llama3", factor=8.0)},
        {**LLAMA3_ROPE, "factor": 8.0},
    ),
    "Llama 3.2": (
        {
            "head_dim": 64,
            "rope_theta": 5e5,
            "ties_embeddings": True,
            "rope_scaling": RopeScaling(rule="llama3", factor=32.0),
        },
        {**LLAMA3_ROPE, "factor": 32.0},
    ),
    "SmolLM2": ({"dim": 144, "n_heads": 9, "n_kv_heads": 3, "rope_theta": 1e5, "ties_embeddings": True}, {}),
    "linear": ({"rope_scaling": RopeScaling(rule="linear", factor=4.0)}, {"rope_type": "linear", "factor": 4.0}),
    "yarn": ({"rope_scaling": RopeScaling(rule="yarn", factor=4.0, original_context=2048)}, YARN),
    "dynamic": (
        {"rope_scaling": RopeScaling(rule="dynamic", factor=4.0, original_context=2048)},
        {"rope_type": "dynamic", "factor": 4.0},
    ),
    "longrope": ({"rope_scaling": LONGROPE}, LONGROPE_OF_TRANSFORMERS),
    "attention bias": ({"attention_bias": True}, {}),
    "feed-forward bias": ({"mlp_bias": True, "n_kv_heads": 4}, {}),
    "all biases, head width free": ({"attention_bias": True, "mlp_bias": True, "head_dim": 24}, {}),
    "OLMo 2 with biases": ({"architecture": "olmo2", "norms_after": True, "qk_norm": True, "attention_bias": True}, {}),
    "OLMo": ({"architecture": "olmo", "norm": "layer", "clip_qkv": 0.5}, {}),
    "OLMo 2": ({"architecture": "olmo2", "norms_after": True, "qk_norm": True, "rope_theta": 5e5}, {}),
}
IDS = [int(i) for i in np.random.default_rng(7).integers(0, 320, 24)]


@pytest.fixture(params=SHAPES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[ModelConfig, dict[str, np.ndarray], torch.nn.Module]:
    changes, rope = SHAPES[request.param]
    config = tiny_config(**changes)
    tensors = tiny_tensors(config, seed=3)
    return config, tensors, hf_model(config, tensors, **rope)


def numpy_logits(config: ModelConfig, tensors: dict[str, np.ndarray], ids: list[int], start: int = 0) -> np.ndarray:
    end = start + len(ids)
    cos, sin = rope_table(config, np.arange(start, end), read=end)
    return reference.logits(config, tensors, reference.forward(config, tensors, np.array(ids), cos, sin))


@pytest.mark.parametrize("start", [0, 8_000, 100_000])
def test_numpy_gives_transformers_logits(case, start):
    config, tensors, oracle = case
    expected = hf_logits(oracle, IDS, start)
    np.testing.assert_allclose(numpy_logits(config, tensors, IDS, start), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 8_000, 100_000])
def test_torch_gives_transformers_logits(case, start):
    config, tensors, oracle = case
    model = LlamaTorch(config, context=start + len(IDS)).load(tensors, torch.float32)
    with torch.inference_mode():
        hidden = model(torch.tensor(IDS), torch.arange(start, start + len(IDS)), lambda layer: mix_causal)
        got = model.logits(hidden).numpy()
    np.testing.assert_allclose(got, hf_logits(oracle, IDS, start), atol=1e-4, rtol=0)


def test_a_cache_changes_nothing(case):
    """Ids read in pieces, each after the keys and values of those before, give the logits of one reading."""
    config, tensors, _ = case
    whole = reference.empty_cache(config, len(IDS))
    rows, at = [], 0
    for size in (1, 7, 1, 15):
        piece = np.array(IDS[at : at + size])
        at += size
        cos, sin = rope_table(config, np.arange(at - size, at))
        seen = [(keys[:at], values[:at]) for keys, values in whole]
        rows.append(reference.logits(config, tensors, reference.forward(config, tensors, piece, cos, sin, seen)))
    np.testing.assert_allclose(np.concatenate(rows), numpy_logits(config, tensors, IDS), atol=1e-5, rtol=0)


def test_what_is_observed_explains_the_result():
    """Residuals add up, attention rows are causal distributions, and the logit lens of the last layer is the logits."""
    config = tiny_config()
    tensors = tiny_tensors(config)
    seen: dict[tuple[str, int], np.ndarray] = {}
    cos, sin = rope_table(config, np.arange(len(IDS)))
    hidden = reference.forward(
        config, tensors, np.array(IDS), cos, sin, observe=lambda what, layer, value: seen.update({(what, layer): value})
    )
    stream = seen["embedding", 0]
    for layer in range(config.n_layers):
        stream = stream + seen["attention", layer] + seen["feed_forward", layer]
        np.testing.assert_allclose(stream, seen["residual", layer], atol=1e-5)
        weights = seen["attention_weights", layer]
        assert weights.shape == (config.n_heads, len(IDS), len(IDS))
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert not weights[:, np.triu(np.ones((len(IDS), len(IDS)), bool), 1)].any()
    np.testing.assert_array_equal(reference.final_norm(config, tensors, seen["residual", 1]), hidden)


def test_torch_names_its_parameters_as_the_table_says(case):
    config, tensors, _ = case
    names = {name.removesuffix(".weight") for name, _ in LlamaTorch(config, context=8).named_parameters()}
    assert names == set(tensors)
