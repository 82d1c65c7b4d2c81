"""Shapes of the members: parameter counts as published, and recognition by shape."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from camelid.errors import FormatError
from camelid.model.config import tensor_shapes
from camelid.model.family import FAMILY, recognise
from camelid.train.planning.devices import matrix_parameters
from tests.tiny import tiny_config

PARAMETERS = {
    "Llama 1 7B": 6_738_415_616,
    "Llama 1 13B": 13_015_864_320,
    "Llama 1 33B": 32_528_943_616,
    "Llama 1 65B": 65_285_660_672,
    "Llama 2 7B": 6_738_415_616,
    "Llama 2 13B": 13_015_864_320,
    "Llama 2 70B": 68_976_648_192,
    "Code Llama 7B": 6_738_546_688,
    "Code Llama 13B": 13_016_028_160,
    "Code Llama 34B": 33_743_970_304,
    "Code Llama 70B": 68_976_910_336,
    "Llama 3 8B": 8_030_261_248,
    "Llama 3 70B": 70_553_706_496,
    "Llama 3.1 405B": 405_853_388_800,
    "Llama 3.2 1B": 1_235_814_400,
    "Llama 3.2 3B": 3_212_749_824,
    "SmolLM2 135M": 134_515_008,
}


@pytest.mark.parametrize("title", PARAMETERS)
def test_parameter_counts_are_those_published(title):
    assert FAMILY[title].config.n_parameters == PARAMETERS[title]


@pytest.mark.parametrize("title", FAMILY)
def test_every_member_is_recognised_as_one_of_its_shape(title):
    found = recognise(FAMILY[title].config)
    assert found is not None
    assert FAMILY[found].config == FAMILY[title].config


def test_a_stranger_is_not_recognised():
    assert recognise(tiny_config()) is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dim": 0}, "dim"),
        ({"n_layers": -1}, "n_layers"),
        ({"n_heads": 4, "n_kv_heads": 3}, "share"),
        ({"head_dim": 15}, "even"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"vocab_size": 3.5}, "vocab_size"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, word):
    with pytest.raises(FormatError, match=word):
        tiny_config(**changes)


@pytest.mark.parametrize("title", FAMILY)
def test_parameters_are_those_of_all_tensors(title: str) -> None:
    config = FAMILY[title].config
    for biased in (False, True):
        shaped = replace(config, attention_bias=biased, mlp_bias=biased)
        assert shaped.n_parameters == sum(math.prod(shape) for shape in tensor_shapes(shaped).values())
        assert matrix_parameters(shaped) == sum(
            math.prod(shape)
            for name, shape in tensor_shapes(shaped).items()
            if len(shape) == 2 and (name != "embed_tokens" or shaped.ties_embeddings)
        )
