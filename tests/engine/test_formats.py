"""One model in every format, after every conversion: the same logits from every backend."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend
from camelid.weights import open_weights, save_weights
from tests.engine.backends import logits
from tests.model.hf import hf_logits, hf_model
from tests.tiny import tiny_config
from tests.weights.models import tiny_weights

FORMS = [("hf", 1), ("meta", 1), ("meta", 4), ("gguf", 1)]
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def logits_of(path: Path, backend: str) -> np.ndarray:
    options = EngineOptions(context=64)
    return logits(Engine(choose_backend(open_weights(path), backend, options), options), IDS)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "torch", "cpu"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_path_gives_the_same_logits(tmp_path: Path, backend: str, tied: bool) -> None:
    config = tiny_config(ties_embeddings=tied, rope_theta=5e5)
    weights = tiny_weights("F32", config=config)
    tensors = {name: tensor.array() for name, tensor in weights.tensors.items()}
    expected = hf_logits(hf_model(config, tensors), IDS)
    first = None
    for number, (one, other) in enumerate(itertools.product(FORMS, FORMS)):
        save_weights(weights, tmp_path / f"{number}a", format=one[0], shards=one[1])
        middle = open_weights(tmp_path / f"{number}a")
        save_weights(middle, tmp_path / f"{number}b", format=other[0], shards=other[1])
        for form in "ab":
            found = logits_of(tmp_path / f"{number}{form}", backend)
            first = found if first is None else first
            np.testing.assert_array_equal(found, first)
    # The C++ engine keeps keys and values in 16 bits.
    np.testing.assert_allclose(first, expected, atol=1e-4 if backend != "cpu" else 1e-2)
